"""Step 4 of a turn: plan its prompt within the token budget. Retrieves and stores nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from chat.enums import Strategy
from chat.errors import ContextOverflow, InvalidRequest
from chat.models import MessagePassage
from chat.prompting.builder import BuiltPrompt, PromptBuilder
from chat.prompting.recalled import Recaller
from chat.rag.sources import source_from_context
from chat.recall.passages import parts_made_once
from chat.schemas.requests import RESPONSE, ChatRequest
from chat.services.turn_context import TurnContext
from chat.services.turn_preparation import Preparation
from chat.services.turn_recall import passages_to_store, recaller_of
from chat.summarization.long_input import placeholder


@dataclass(frozen=True, kw_only=True)
class TurnPlan:
    """A turn before it is stored. With a ``preparation`` the prompt only proves that the dialogue fits; the final one
    is built once the memories are there. ``passages`` are those that the conversation's messages lack."""

    context: TurnContext
    prompt: BuiltPrompt
    preparation: Preparation | None
    passages: list[MessagePassage]

    def details(self, *, is_stored: bool) -> dict[str, Any]:
        """Return the details of an answer's generation."""
        request = self.context.validated.request
        response: dict[str, Any] = {}
        if request.response:
            response[RESPONSE] = {**request.response, "n_input": len(self.context.new_messages)}
        if self.preparation:
            return {"preparation": self.preparation.as_json(), **response}
        details: dict[str, Any] = {"history": self.prompt.history_note, **response}
        if request.metadata:
            details["metadata"] = dict(request.metadata)
        if not is_stored:
            details["sources"] = [source.as_wire() for source in self.prompt.sources]
        return details


@contextmanager
def question_named(request: ChatRequest) -> Iterator[None]:
    """Let an overflow name the field that the caller wrote."""
    try:
        yield
    except ContextOverflow as overflow:
        overflow.field = request.question_field
        raise


def plan_turn(context: TurnContext) -> TurnPlan:
    """Raises ContextOverflow. To be called outside of a transaction: rendering takes long, and would block writers."""
    passages: list[MessagePassage] = []
    with parts_made_once(), question_named(context.validated.request):
        prompt, preparation = _plan(context)
        # Before their turns leave the prompt, so that the vectors are there when they do.
        if context.new_messages and context.conversation and context.recalls and prompt.may_need_summary:
            passages = passages_to_store(context.fork, context.conversation, [*context.stored, *context.new_messages])
    return TurnPlan(context=context, prompt=prompt, preparation=preparation, passages=passages)


def _plan(context: TurnContext) -> tuple[BuiltPrompt, Preparation | None]:
    request, conversation = context.validated.request, context.conversation
    tools = request.tool_use.offered if request.tool_use else ()
    builder = PromptBuilder(
        system_prompt=context.system_prompt,
        max_tokens=request.max_tokens,
        strategy=context.strategy,
        summary=context.summary,
        prefill=request.prefill,
        tools=tools,
        effort=request.reasoning_effort,
        recaller=_recaller(context) if context.recalls else None,
    )
    dialogue = context.dialogue
    # The request itself has to name the strategy: a long message costs as many generations as it has parts.
    is_long = (
        request.strategy is Strategy.SUMMARIZE
        and request.store
        and builder.overflow_alone(context.question) is not None
    )
    if is_long:
        dialogue = [*dialogue[:-1], replace(dialogue[-1], text=placeholder(builder, context.question))]
    documents = tuple(source_from_context(item) for item in request.context)
    needs_retrieval = settings.RAG_DEFAULT if request.use_rag is None else request.use_rag
    # Nothing to wait for: the prompt is final, and the row is queued at once.
    if not (needs_retrieval or is_long):
        return builder.build(dialogue, documents), None
    # One row is prepared: further choices would have no prompt.
    if request.n > 1:
        raise InvalidRequest("n above 1 cannot be combined with use_rag", code="unsupported", field="n")
    preparation = Preparation(
        query=context.question,
        top_k=request.rag_top_k,
        filters=request.filters,
        documents=documents,
        max_tokens=request.max_tokens,
        strategy=context.strategy,
        system_prompt=context.system_prompt,
        conversation_id=None if request.store or context.fork or not conversation else conversation.pk,
        transient=tuple((str(message.role), message.text, message.thought) for message in context.transient),
        needs_retrieval=needs_retrieval,
        is_long=is_long,
        prefill=request.prefill,
        tools=tools,
        effort=request.reasoning_effort,
        recalls=context.recalls,
        metadata=dict(request.metadata),
        instructions=request.instructions,
    )
    # Built without memories all the same: a dialogue that cannot fit is refused before it is stored.
    return builder.build(dialogue, is_final=False), preparation


def _recaller(context: TurnContext) -> Recaller:
    return recaller_of(
        context.question,
        dialogue=context.dialogue,
        conversation=context.conversation_read,
        n_stored=len(context.stored),
    )
