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
from chat.prompting.builder import Composer, Composition, sequence_params, timeout_secs
from chat.prompting.message_groups import Said, said_in, write_renderings
from chat.rag.sources import Source, source_from_context
from chat.schemas.requests import ChatRequest
from chat.services.history_matching import digests
from chat.services.turn_context import Ground, find_ground
from chat.services.turn_preparation import PREPARE_TASK, Preparation
from chat.services.validation import Asked
from chat.summarization.long_input import is_too_long, stand_in
from chat.summarization.rolling import AFTER_ANSWER_TASK
from inference.models import Generation
from inference.queue import generations

MAX_TITLE_CHARS = 80


class ConversationMoved(Exception):
    """Somebody continued, deleted or re-instructed the conversation while this turn was worked out."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of a turn before it is stored. ``new`` are the unsaved messages that come after the ground's, in order."""

    caller: Caller
    request: ChatRequest
    ground: Ground
    composer: Composer
    composition: Composition
    new: list[Message]
    preparation: Preparation | None  # None: no search, the prompt is final


def plan_turn(*, caller: Caller, request: ChatRequest, asked: Asked, may_continue: bool = True) -> Plan:
    """Find the conversation, render the prompt. Raises NotFound, ConversationBusy, ContextOverflow."""
    # Read outside of a transaction: rendering a long history must not keep other writers waiting.
    ground = find_ground(caller=caller, request=request, asked=asked, may_continue=may_continue)
    new = _new_messages(ground) if request.store else []
    said = [*said_in(ground.before), *(said_in(new) or ground.unsaid)]
    composer = _composer(request, ground)
    question = ground.asked.user
    # Asked for in so many words: it takes as many generations as the message has parts.
    is_long = request.strategy is Strategy.SUMMARIZE and request.store and is_too_long(composer, question)
    if is_long:
        said[-1] = replace(said[-1], text=stand_in(composer, question))
    preparation = Preparation.wanted_by(request, ground, composer.budget.strategy, is_long=is_long)
    # With a search to come this prompt is only a proof that the dialogue fits; documents are chosen with the memories.
    documents: list[Source] = [] if preparation else [source_from_context(item) for item in request.context]
    return Plan(
        caller=caller,
        request=request,
        ground=ground,
        composer=composer,
        composition=composer.compose(said, documents),
        new=new,
        preparation=preparation,
    )


def _composer(request: ChatRequest, ground: Ground) -> Composer:
    own = ground.conversation.strategy if ground.conversation else Strategy.SUMMARIZE
    strategy = request.strategy or Strategy(own)
    return Composer(
        own_system=ground.system,
        max_tokens=request.max_tokens,
        strategy=strategy,
        remembered=ground.remembered(strategy),
    )


def _new_messages(ground: Ground) -> list[Message]:
    """Unsaved rows of what is new, each user message with its cumulative digest; a new conversation gets its title."""
    conversation = ground.conversation
    if conversation is None:
        return []
    if not ground.before and not conversation.title:
        conversation.title = title_of(ground.unsaid)
    users_before = [message for message in ground.before if message.role == Role.USER]
    texts = [each.text for each in ground.unsaid if each.role == Role.USER]
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
        for position, each in enumerate(ground.unsaid, ground.before[-1].position + 1 if ground.before else 0)
    ]
    new[-1].condensed = ground.condensed
    return new


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
    conversation = plan.ground.conversation if plan.new else None
    if conversation:
        _hold(conversation, plan.ground)
    generation = _create_generation(plan, idempotency_key, request_digest)
    if conversation is None:
        return generation
    _store_messages(plan)
    answer = Message.objects.create(
        conversation=conversation,
        position=plan.new[-1].position + 1,
        role=Role.ASSISTANT,
        generation=generation,
        rendered_with=plan.composition.answer_key,
    )
    if plan.composition.sources:
        Retrieval.objects.create(message=answer, sources=[source.as_wire() for source in plan.composition.sources])
    return generation


def _hold(conversation: Conversation, ground: Ground) -> None:
    """Make the row of a new conversation, or lock a known one and see that it is as it was read."""
    known = ground.branch.source if ground.branch else conversation
    # SQLite knows no row locks and needs none: the transaction is immediate, other writers wait at its beginning.
    locked = None if known._state.adding else Conversation.objects.select_for_update().filter(pk=known.pk).first()
    if conversation._state.adding:
        if ground.branch and locked is None:
            raise ConversationMoved  # whoever deleted it meant its copies too
        conversation.save(force_insert=True)
        return
    if locked is None or conversation.messages.count() != len(ground.before):
        raise ConversationMoved
    if locked.system_prompt != conversation.system_prompt:
        raise ConversationMoved  # the prompt was rendered under the old one
    conversation.title = locked.title or conversation.title
    conversation.save(update_fields=["title", "updated_at"])


def _store_messages(plan: Plan) -> None:
    """The new messages, a branch's copies before them, and what known ones are rendered to now."""
    changed = write_renderings(plan.composition.groups, plan.composition.prompt.exchanges)
    known = [message for message in changed if not message._state.adding]
    branch = plan.ground.branch
    Message.objects.bulk_create([*(branch.messages if branch else ()), *plan.new])
    Message.objects.bulk_update(known, ["rendered", "rendered_with"], batch_size=100)
    if branch:
        Retrieval.objects.bulk_create(branch.retrievals)
        if branch.summary:
            branch.summary.save(force_insert=True)


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
        details=_details(plan),
        ephemeral=not request.store,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
    )


def _is_long(plan: Plan) -> bool:
    return plan.composer.may_call_for_summary(plan.composition.prompt)


def _details(plan: Plan) -> dict[str, Any]:
    if plan.preparation:
        return {"preparation": plan.preparation.as_json()}
    details: dict[str, Any] = {"history": plan.composition.history_note}
    if not plan.request.store:
        details["sources"] = [source.as_wire() for source in plan.composition.sources]
    return details
