"""Analyses of stored segments: a prompt with the segments that filters choose, answered without a conversation."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from chat.enums import ChatRole, Strategy
from chat.schemas.answer_types import as_json
from chat.schemas.chat_bodies import RunOptionsBody, run_options
from chat.schemas.decoding import FieldError, decode
from chat.schemas.requests import ChatMessage, ChatRequest
from chat.schemas.scalars import Text
from chat.schemas.stack.transcripts import LineAnswer, SegmentItem, SegmentQuery, SegmentQueryBody, segment_query_of
from inference.models import Generation

PLACE = "{transcripts}"
DEFAULTS = {"max_tokens": 1024, "temperature": 0.3}
DEFAULT_PROMPT = f"""\
Below are excerpts of recorded conversations. Describe how the speakers talk to each other: faulty arguments, curt \
or exaggerated wording, and what sets off strong feelings. For each point quote the line it rests on, and suggest a \
better way to put it. End with two or three sentences about the whole.

{PLACE}"""
SHOWN_CHARS = 200  # of the prompt, in the answer


class AnalyzeBody(RunOptionsBody, frozen=True, kw_only=True):
    """``custom_prompt`` holds ``{transcripts}`` once, where the segments belong; without it they are at the end."""

    filters: SegmentQueryBody | None = None
    custom_prompt: Annotated[Text, Meta(max_length=100_000)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Thousands of places, with all segments in each, would fill the memory.
        if (self.custom_prompt or "").count(PLACE) > 1:
            raise FieldError("custom_prompt", f"may have {PLACE} once")


class Analysis(Struct, frozen=True, kw_only=True):
    """Segments to analyse, prompt and options."""

    query: SegmentQuery
    prompt: str
    options: dict[str, Any]
    filters: dict[str, Any]


class AnalysisAnswer(Struct, frozen=True, kw_only=True):
    """``success`` false: no segment matches the filters, which is the ``error``, and there is no analysis."""

    success: bool
    analysis: str = ""
    transcripts_analyzed: int = 0
    processing_time_seconds: float = 0.0
    model: str = ""
    filters_applied: dict[str, Any] = {}
    prompt_used: Annotated[str, Meta(description=f"Its first {SHOWN_CHARS} characters.")] = ""
    error: str = ""


def analysis(data: object) -> Analysis:
    """Return the typed request. Raises InvalidRequest with the field's path."""
    body = decode(AnalyzeBody, data)
    prompt = body.custom_prompt if body.custom_prompt and body.custom_prompt.strip() else DEFAULT_PROMPT
    filters = body.filters or SegmentQueryBody()
    return Analysis(
        query=segment_query_of(filters),
        prompt=prompt if PLACE in prompt else f"{prompt}\n\n{PLACE}",
        options=DEFAULTS | run_options(body),
        filters={name: value for name, value in as_json(filters).items() if value is not None},
    )


def prompt_of(chosen: Analysis, items: Sequence[SegmentItem]) -> str:
    """Return the prompt with the segments in their place, each with its time and the lines around it."""
    excerpts: list[str] = []
    for item in items:
        line = LineAnswer(speaker=item.speaker, text=item.text, emotion=item.emotion)
        lines = [*item.context_before, line, *item.context_after]
        spoken = [
            f"{line.speaker or 'unknown'}{f' ({line.emotion})' if line.emotion else ''}: {line.text}" for line in lines
        ]
        excerpts.append("\n".join([f"[{item.created_at}]", *spoken]))
    return chosen.prompt.replace(PLACE, "\n\n".join(excerpts))


def analysis_request(chosen: Analysis, prompt: str) -> ChatRequest:
    """Return the turn that answers the prompt. It is not stored: a prompt that does not fit is refused."""
    messages = (ChatMessage(ChatRole.USER, prompt),)
    return ChatRequest(messages=messages, store=False, use_rag=False, strategy=Strategy.SUMMARIZE, **chosen.options)


def analysis_answer(chosen: Analysis, prompt: str, n_segments: int, generation: Generation) -> AnalysisAnswer:
    timings = generation.timings
    return AnalysisAnswer(
        success=True,
        analysis=generation.text,
        transcripts_analyzed=n_segments,
        processing_time_seconds=round(sum(timings.get(name, 0.0) for name in ("prefill", "decode")) / 1000, 2),
        model=generation.model_name,
        filters_applied=chosen.filters,
        prompt_used=prompt[:SHOWN_CHARS],
    )
