"""The chunks of a streamed chat completion."""

import json
import time
from typing import Any

import msgspec
from msgspec import UNSET

from chat.api.openai.choices import AcceptedCall
from chat.api.openai.logprob_queue import LogprobQueue
from chat.api.openai.streams import data_event, is_waiting
from chat.schemas.answer_types import as_json
from chat.schemas.openai.chat_answers import (
    ChatCompletionChunk,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    TimedProgress,
)
from chat.schemas.openai.rendering import annotations_of, finish_reason, timings_of, token_logprob, usage_of
from chat.schemas.openai.tool_answers import delta_of
from chat.schemas.stream_types import StreamStatus
from chat.streaming.events import WireLine
from chat.tool_calling.call_parser import AnswerDelta, CallEvent, ToolCallParser

# Characters that no JSON text holds unescaped: marks the place of a token's text in a rendered chunk.
_MARK = "\x00"
NO_LINE: WireLine = {"token": "", "done": False}


class ChatChunkWriter:
    """Renders chunks; that of a plain token is a template, since thousands follow each other."""

    def __init__(self, accepted: AcceptedCall, metadata: dict[str, str]) -> None:
        self._tokenizer = accepted.tokenizer
        self._metadata = metadata
        self._texts: dict[int, list[str]] = {}
        self._returns_progress = accepted.call.returns_progress
        self._returns_logprobs = accepted.call.returns_logprobs
        self._processed: dict[int, int] = {}  # tokens of the prompt last reported for a choice
        self._began_at = time.monotonic()
        self._ids = [turn.turn.generation_id for turn in accepted.turns]
        self._parsers = [ToolCallParser() for _ in accepted.turns] if accepted.call.calls_tools else []
        self._queues = [LogprobQueue() for _ in accepted.turns]
        self._common: dict[str, Any] = {
            "id": f"chatcmpl-{accepted.id.hex}",
            "created": accepted.created,
            "model": accepted.model,
            "system_fingerprint": accepted.system_fingerprint,
            # Asked for, it is null in every chunk but one.
            "usage": None if accepted.call.has_usage_chunk else UNSET,
        }
        self._templates = [self._template(number) for number in range(len(accepted.turns))]

    def started(self, number: int, line: WireLine) -> bytes:
        self._texts[number] = []
        choice = ChunkChoice(index=number, delta=ChoiceDelta(role="assistant", content=None))
        ids = {name: line[name] for name in ("conversation_id", "message_id")}
        return self._event([choice], **ids, metadata=self._metadata or UNSET)

    def token(self, number: int, line: WireLine) -> bytes:
        if self._parsers:
            return self._call_events(number, line, self._parsers[number].push(line["token"]))
        self._texts[number].append(line["token"])
        logprobs = self._logprobs(number, line)
        if not (line["token"] or "thought" in line or logprobs):
            return b""  # the first token of a character that has several, or text that a stop string may become
        if not logprobs and "thought" not in line:
            before, after = self._templates[number]
            return before + json.dumps(line["token"]).encode("ascii") + after
        thought = line.get("thought", UNSET)
        # A delta of a thought has no content, not an empty one: clients begin to show the answer at the first.
        content = UNSET if thought and not line["token"] else line["token"]
        delta = ChoiceDelta(content=content, reasoning_content=thought)
        return self._event([ChunkChoice(index=number, delta=delta, logprobs=logprobs)])

    def _call_events(self, number: int, line: WireLine, events: list[CallEvent]) -> bytes:
        """Render the text and calls that a line has released; log-probabilities come with the first of them."""
        self._texts[number] += [event.text for event in events if isinstance(event, AnswerDelta)]
        deltas = [delta_of(event, self._ids[number]) for event in events]
        if "thought" in line:
            deltas.insert(0, ChoiceDelta(reasoning_content=line["thought"]))
        logprobs = self._logprobs(number, line)
        if logprobs and not deltas:
            deltas = [ChoiceDelta(content="")]
        first, further = deltas[:1], deltas[1:]
        choices = [ChunkChoice(index=number, delta=delta, logprobs=logprobs) for delta in first]
        choices += [ChunkChoice(index=number, delta=delta) for delta in further]
        return b"".join([self._event([choice]) for choice in choices])

    def _logprobs(self, number: int, line: WireLine) -> ChoiceLogprobs | None:
        tokens = [token_logprob(logprobs, self._tokenizer) for logprobs in self._queues[number].push(line)]
        return ChoiceLogprobs(content=tokens) if tokens else None

    def status(self, number: int, line: WireLine) -> bytes:
        # With a choice, since many clients look at the first one of every chunk, and its log-probabilities; without a
        # text, since an answer is shown from its first text on.
        logprobs = ChoiceLogprobs(content=[]) if self._returns_logprobs else None
        choice = ChunkChoice(index=number, delta=ChoiceDelta(), logprobs=logprobs)
        status = msgspec.convert(line["status"], StreamStatus)
        events = [self._event([choice], x_status=status)] if is_waiting(line, self._began_at) else []
        prompt = status.prompt
        if self._returns_progress and prompt:
            time_ms = round((time.monotonic() - self._began_at) * 1000, 1)
            # What is new, first the reused tokens alone, as llama-server begins.
            steps = [prompt.processed] if number in self._processed else [prompt.cache, prompt.processed]
            before = self._processed.get(number, -1)
            for n_tokens in (step for step in steps if step > before):
                progress = TimedProgress(total=prompt.total, cache=prompt.cache, processed=n_tokens, time_ms=time_ms)
                events.append(self._event([choice], prompt_progress=progress))
            self._processed[number] = max(prompt.processed, before, 0)
        return b"".join(events)

    def ended(self, number: int, line: WireLine) -> bytes:
        text = self.token(number, line)
        if self._parsers:
            text += self._call_events(number, NO_LINE, self._parsers[number].flush())
        has_calls = bool(self._parsers and self._parsers[number].n_calls)
        annotations = annotations_of("".join(self._texts[number]), line)
        delta = ChoiceDelta(annotations=annotations or UNSET)
        choice = ChunkChoice(index=number, delta=delta, finish_reason=finish_reason(line, has_calls=has_calls))
        return text + self._event([choice], timings=timings_of(line))

    def usage(self, lasts: list[WireLine]) -> bytes:
        return self._event([], usage=usage_of(lasts), timings=timings_of(lasts[0]))

    def _template(self, number: int) -> tuple[bytes, bytes]:
        event = self._event([ChunkChoice(index=number, delta=ChoiceDelta(content=_MARK))])
        before, _, after = event.partition(json.dumps(_MARK).encode("ascii"))
        return before, after

    def _event(self, choices: list[ChunkChoice], **more: Any) -> bytes:  # noqa: ANN401  fields of the chunk
        return data_event(as_json(ChatCompletionChunk(choices=choices, **self._common | more)))
