"""A turn worked out and stored: which conversation it continues, which rows it makes.

Nothing here retrieves memories; nothing is stored before all that could refuse the turn has been asked.
"""

import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from chat.callers import Caller
from chat.composing import Composer, Composition, sequence_params, timeout_secs
from chat.continuation import digests, find_continued
from chat.dialogue import Said, said_in, write_renderings
from chat.errors import ConversationBusy, NotFound
from chat.history.long_messages import is_too_long, stand_in
from chat.history.summaries import AFTER_ANSWER_TASK, remembered
from chat.memory.sources import Source, from_context
from chat.models import Conversation, Message, Retrieval, Role
from chat.preparation import PREPARE_TASK, Preparation
from chat.requests import ChatRequest, Strategy
from chat.rules import Asked
from inference import services as generations
from inference.models import Generation

MAX_TITLE_CHARS = 80


class ConversationMoved(Exception):
    """Somebody continued, deleted or re-instructed the conversation while this turn was worked out."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of a turn before it is stored. ``kept`` are stored messages, ``new`` unsaved ones, in order."""

    caller: Caller
    request: ChatRequest
    composer: Composer
    composition: Composition
    conversation: Conversation | None
    kept: list[Message]
    new: list[Message]
    preparation: Preparation | None  # None: no search, the prompt is final


def plan_turn(*, caller: Caller, request: ChatRequest, asked: Asked, may_continue: bool = True) -> Plan:
    """Find the conversation, render the prompt. Raises NotFound, ConversationBusy, ContextOverflow."""
    # Read outside of a transaction: rendering a long history must not keep other writers waiting.
    conversation = _conversation_for(caller, request, asked, may_continue=may_continue)
    kept = list(conversation.messages.in_order()) if conversation else []
    if request.conversation_id and any(message.generation and not message.generation.is_ended for message in kept):
        raise ConversationBusy("the last answer of this conversation is not finished")
    # A known conversation has the earlier messages; of a sent history for a new one all is still unsaid.
    is_known = conversation is not None
    unsaid = [Said(Role.USER, asked.user)] if is_known else [*asked.earlier, Said(Role.USER, asked.user)]
    if conversation is None and request.store:
        conversation = Conversation(owner=caller.key, system_prompt=asked.system)
    if conversation and not kept and not conversation.title:
        conversation.title = title_of(unsaid)
    new = _new_messages(conversation, kept, unsaid) if conversation and request.store else []
    said = [*said_in(kept), *(said_in(new) or unsaid)]
    own_system = conversation.system_prompt if conversation else asked.system
    strategy = request.strategy or Strategy(conversation.strategy if conversation else Strategy.SUMMARIZE)
    composer = Composer(
        own_system=own_system,
        max_tokens=request.max_tokens,
        strategy=strategy,
        remembered=remembered(conversation, strategy),
    )
    # Asked for in so many words: it takes as many generations as the message has parts.
    is_long = request.strategy is Strategy.SUMMARIZE and request.store and is_too_long(composer, asked.user)
    if is_long:
        said[-1] = replace(said[-1], text=stand_in(composer, asked.user))
    preparation = Preparation.wanted_by(request, asked, strategy, is_long=is_long)
    # With a search to come this prompt is only a proof that the dialogue fits; documents are chosen with the memories.
    documents: list[Source] = [] if preparation else [from_context(item) for item in request.context]
    return Plan(
        caller=caller,
        request=request,
        composer=composer,
        composition=composer.compose(said, documents),
        conversation=conversation,
        kept=kept,
        new=new,
        preparation=preparation,
    )


def _conversation_for(caller: Caller, request: ChatRequest, asked: Asked, *, may_continue: bool) -> Conversation | None:
    """The stored conversation that the turn goes on with, or None for a new one."""
    if request.conversation_id:
        found = Conversation.objects.of(caller.key).filter(pk=request.conversation_id).first()
        if found is None:
            raise NotFound("there is no such conversation", field="conversation_id")
        return found
    if not (may_continue and request.store):
        return None
    return find_continued(owner=caller.key, system=asked.system, earlier=asked.earlier)


def _new_messages(conversation: Conversation, kept: list[Message], said: list[Said]) -> list[Message]:
    """Unsaved rows of what is new, each user message with its cumulative digest."""
    users_before = [message for message in kept if message.role == Role.USER]
    texts = [each.text for each in said if each.role == Role.USER]
    before = users_before[-1].history_digest if users_before else None
    codes = iter(digests(conversation.system_prompt, texts, after=before))
    return [
        Message(
            conversation=conversation,
            position=position,
            role=each.role,
            content=each.text,
            history_digest=next(codes) if each.role == Role.USER else "",
        )
        for position, each in enumerate(said, kept[-1].position + 1 if kept else 0)
    ]


def title_of(said: list[Said]) -> str:
    """The beginning of the first user message, on one line, cut between words."""
    first = next(each.text for each in said if each.role == Role.USER)
    # Titles are printed in lists and terminals: no control characters.
    text = " ".join("".join(" " if unicodedata.category(ch) == "Cc" else ch for ch in first[:1000]).split())
    if len(text) <= MAX_TITLE_CHARS:
        return text
    cut = text[:MAX_TITLE_CHARS]
    return (cut.rpartition(" ")[0] if " " in cut[MAX_TITLE_CHARS // 2 :] else cut).rstrip(" ,;:") + " …"


@transaction.atomic
def store_plan(plan: Plan, *, idempotency_key: str | None, request_digest: str) -> Generation:
    """Make the rows of a turn; if it is kept, its answer is ``generation.message``.

    Raises ConversationMoved, ``inference``'s refusals and KeyTaken; then nothing of it remains.
    """
    if plan.conversation and plan.new:
        _hold(plan.conversation, plan.kept)
    generation = _create_generation(plan, idempotency_key, request_digest)
    if not (plan.conversation and plan.new):
        return generation
    changed = write_renderings(plan.composition.groups, plan.composition.prompt.exchanges)
    Message.objects.bulk_create(plan.new)
    Message.objects.bulk_update(
        [message for message in changed if message not in plan.new], ["rendered", "rendered_with"], batch_size=100
    )
    answer = Message.objects.create(
        conversation=plan.conversation,
        position=plan.new[-1].position + 1,
        role=Role.ASSISTANT,
        generation=generation,
        rendered_with=plan.composition.answer_key,
    )
    if plan.composition.sources:
        Retrieval.objects.create(message=answer, sources=[source.as_wire() for source in plan.composition.sources])
    return generation


def _hold(conversation: Conversation, kept: list[Message]) -> None:
    """Make the row of a new conversation, or lock a known one and see that it is as it was read."""
    if conversation._state.adding:
        conversation.save(force_insert=True)
        return
    # SQLite knows no row locks and needs none: the transaction is immediate, other writers wait at its beginning.
    locked = Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
    if locked is None or conversation.messages.count() != len(kept):
        raise ConversationMoved
    if locked.system_prompt != conversation.system_prompt:
        raise ConversationMoved  # the prompt was rendered under the old one
    conversation.title = locked.title or conversation.title
    conversation.save(update_fields=["title", "updated_at"])


def _create_generation(plan: Plan, idempotency_key: str | None, request_digest: str) -> Generation:
    request, ids = plan.request, plan.composition.prompt.ids
    return generations.create(
        owner=plan.caller.key,
        params=sequence_params(
            request,
            plan.composer.format,
            n_prompt=len(ids),
            context_size=plan.composer.budget.context_size,
            highest_label=plan.composition.highest_label,
        ),
        priority=request.priority,
        prompt_ids=None if plan.preparation else ids,
        prepare_task=PREPARE_TASK if plan.preparation else "",
        follow_up_task=AFTER_ANSWER_TASK if request.store and not plan.preparation and _is_long(plan) else "",
        timeout_secs=timeout_secs(request),
        session_id=request.session_id,
        annex=_annex(plan),
        ephemeral=not request.store,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
    )


def _is_long(plan: Plan) -> bool:
    return plan.composer.may_call_for_summary(plan.composition.prompt)


def _annex(plan: Plan) -> dict[str, Any]:
    if plan.preparation:
        return {"preparation": plan.preparation.as_json()}
    annex: dict[str, Any] = {"history": plan.composition.history_note}
    if not plan.request.store:
        annex["sources"] = [source.as_wire() for source in plan.composition.sources]
    return annex
