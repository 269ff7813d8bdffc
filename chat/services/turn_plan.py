"""A turn worked out and stored: which prompt it comes to, which rows it makes.

Nothing here retrieves memories; nothing is stored before all that could refuse the turn has been asked.
"""

import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from chat.access.callers import Caller
from chat.enums import Strategy
from chat.models import Conversation, Message, Retrieval, Role
from chat.prompting.builder import BuiltPrompt, PromptBuilder, sequence_params, timeout_secs
from chat.prompting.message_groups import DialogueMessage, dialogue_of, update_renderings
from chat.rag.sources import Source, source_from_context
from chat.schemas.requests import ChatRequest
from chat.services.history_matching import digests
from chat.services.turn_context import TurnContext, load_context
from chat.services.turn_preparation import PREPARE_TASK, Preparation
from chat.services.validation import ValidatedRequest
from chat.summarization.long_input import is_too_long, placeholder
from chat.summarization.rolling import AFTER_ANSWER_TASK
from inference.models import Generation
from inference.queue import generations

MAX_TITLE_CHARS = 80


class ConversationChanged(Exception):
    """Somebody continued, deleted or re-instructed the conversation while this turn was worked out."""


@dataclass(frozen=True, kw_only=True)
class TurnPlan:
    """All of a turn before it is stored. ``new`` are the unsaved messages that come after the ground's, in order."""

    caller: Caller
    request: ChatRequest
    context: TurnContext
    builder: PromptBuilder
    built: BuiltPrompt
    new: list[Message]
    preparation: Preparation | None  # None: no search, the prompt is final


def plan_turn(*, caller: Caller, request: ChatRequest, asked: ValidatedRequest, may_continue: bool = True) -> TurnPlan:
    """Find the conversation, render the prompt. Raises NotFound, ConversationBusy, ContextOverflow."""
    # Read outside of a transaction: rendering a long history must not keep other writers waiting.
    context = load_context(caller=caller, request=request, asked=asked, may_continue=may_continue)
    new = _new_messages(context) if request.store else []
    said = [*dialogue_of(context.before), *(dialogue_of(new) or context.incoming)]
    builder = _builder(request, context)
    question = context.asked.user
    # Asked for in so many words: it takes as many generations as the message has parts.
    is_long = request.strategy is Strategy.SUMMARIZE and request.store and is_too_long(builder, question)
    if is_long:
        said[-1] = replace(said[-1], text=placeholder(builder, question))
    preparation = Preparation.wanted_by(request, context, builder.budget.strategy, is_long=is_long)
    # With a search to come this prompt is only a proof that the dialogue fits; documents are chosen with the memories.
    documents: list[Source] = [] if preparation else [source_from_context(item) for item in request.context]
    return TurnPlan(
        caller=caller,
        request=request,
        context=context,
        builder=builder,
        built=builder.build(said, documents),
        new=new,
        preparation=preparation,
    )


def _builder(request: ChatRequest, context: TurnContext) -> PromptBuilder:
    own = context.conversation.strategy if context.conversation else Strategy.SUMMARIZE
    strategy = request.strategy or Strategy(own)
    return PromptBuilder(
        own_system=context.system,
        max_tokens=request.max_tokens,
        strategy=strategy,
        history_summary=context.history_summary(strategy),
    )


def _new_messages(context: TurnContext) -> list[Message]:
    """Unsaved rows of what is new, each user message with its cumulative digest; a new conversation gets its title."""
    conversation = context.conversation
    if conversation is None:
        return []
    if not context.before and not conversation.title:
        conversation.title = title_of(context.incoming)
    users_before = [message for message in context.before if message.role == Role.USER]
    texts = [each.text for each in context.incoming if each.role == Role.USER]
    before = users_before[-1].history_digest if users_before else None
    codes = iter(digests(conversation.system_prompt, texts, after=before))
    new = [
        Message(
            conversation=conversation,
            position=position,
            role=each.role,
            content=each.text,
            history_digest=next(codes) if each.role == Role.USER else "",
        )
        for position, each in enumerate(context.incoming, context.before[-1].position + 1 if context.before else 0)
    ]
    new[-1].condensed = context.condensed
    return new


def title_of(said: list[DialogueMessage]) -> str:
    """The beginning of the first user message, on one line, cut between words."""
    first = next(each.text for each in said if each.role == Role.USER)
    # Titles are printed in lists and terminals: no control characters.
    text = " ".join("".join(" " if unicodedata.category(ch) == "Cc" else ch for ch in first[:1000]).split())
    if len(text) <= MAX_TITLE_CHARS:
        return text
    cut = text[:MAX_TITLE_CHARS]
    return (cut.rpartition(" ")[0] if " " in cut[MAX_TITLE_CHARS // 2 :] else cut).rstrip(" ,;:") + " …"


@transaction.atomic
def store_turn(plan: TurnPlan, *, idempotency_key: str | None, request_digest: str) -> Generation:
    """Make the rows of a turn; if it is kept, its answer is ``generation.message``.

    Raises ConversationMoved, ``inference``'s refusals and KeyTaken; then nothing of it remains.
    """
    conversation = plan.context.conversation if plan.new else None
    if conversation:
        _hold(conversation, plan.context)
    generation = _create_generation(plan, idempotency_key, request_digest)
    if conversation is None:
        return generation
    _store_messages(plan)
    answer = Message.objects.create(
        conversation=conversation,
        position=plan.new[-1].position + 1,
        role=Role.ASSISTANT,
        generation=generation,
        rendered_with=plan.built.answer_key,
    )
    if plan.built.sources:
        Retrieval.objects.create(message=answer, sources=[source.as_wire() for source in plan.built.sources])
    return generation


def _hold(conversation: Conversation, context: TurnContext) -> None:
    """Make the row of a new conversation, or lock a known one and see that it is as it was read."""
    known = context.fork.source if context.fork else conversation
    # SQLite knows no row locks and needs none: the transaction is immediate, other writers wait at its beginning.
    locked = None if known._state.adding else Conversation.objects.select_for_update().filter(pk=known.pk).first()
    if conversation._state.adding:
        if context.fork and locked is None:
            raise ConversationChanged  # whoever deleted it meant its copies too
        conversation.save(force_insert=True)
        return
    if locked is None or conversation.messages.count() != len(context.before):
        raise ConversationChanged
    if locked.system_prompt != conversation.system_prompt:
        raise ConversationChanged  # the prompt was rendered under the old one
    conversation.title = locked.title or conversation.title
    conversation.save(update_fields=["title", "updated_at"])


def _store_messages(plan: TurnPlan) -> None:
    """The new messages, a branch's copies before them, and what known ones are rendered to now."""
    changed = update_renderings(plan.built.groups, plan.built.prompt.exchanges)
    known = [message for message in changed if not message._state.adding]
    fork = plan.context.fork
    Message.objects.bulk_create([*(fork.messages if fork else ()), *plan.new])
    Message.objects.bulk_update(known, ["rendered", "rendered_with"], batch_size=100)
    if fork:
        Retrieval.objects.bulk_create(fork.retrievals)
        if fork.summary:
            fork.summary.save(force_insert=True)


def _create_generation(plan: TurnPlan, idempotency_key: str | None, request_digest: str) -> Generation:
    request, ids = plan.request, plan.built.prompt.ids
    return generations.create(
        owner=plan.caller.key,
        params=sequence_params(
            request,
            plan.builder.format,
            n_prompt=len(ids),
            context_size=plan.builder.budget.context_size,
            highest_label=plan.built.highest_label,
        ),
        priority=request.priority,
        prompt_ids=None if plan.preparation else ids,
        prepare_task=PREPARE_TASK if plan.preparation else "",
        follow_up_task=AFTER_ANSWER_TASK if request.store and not plan.preparation and _is_long(plan) else "",
        timeout_secs=timeout_secs(request),
        session_id=request.session_id,
        details=_details(plan),
        ephemeral=not request.store,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
    )


def _is_long(plan: TurnPlan) -> bool:
    return plan.builder.may_call_for_summary(plan.built.prompt)


def _details(plan: TurnPlan) -> dict[str, Any]:
    if plan.preparation:
        return {"preparation": plan.preparation.as_json()}
    details: dict[str, Any] = {"history": plan.built.history_note}
    if not plan.request.store:
        details["sources"] = [source.as_wire() for source in plan.built.sources]
    return details
