"""Step 5 of a turn: store its rows in one transaction. Its commit sends the wake-up message to the workers."""

from django.db import transaction

from chat.access import usage
from chat.access.caller_limits import limits_of
from chat.models import Conversation, Message, MessagePassage, Retrieval, Role
from chat.prompting.message_groups import update_renderings
from chat.prompting.sequence_params import sequence_params, timeout_secs
from chat.services.turn_context import TurnContext
from chat.services.turn_plan import TurnPlan
from chat.services.turn_preparation import PREPARE_TASK
from chat.summarization.rolling import AFTER_ANSWER_TASK, raise_priority
from chat.summarization.titles import is_awaited
from inference.models import Generation
from inference.queue import generations


class ConversationChanged(Exception):
    """Another request continued, deleted or re-instructed the conversation after its rows were read."""


@transaction.atomic
def store_choices(plan: TurnPlan, *, idempotency_key: str | None, request_digest: str) -> list[Generation]:
    """Store a turn as ``store_turn`` does, and a generation for each further answer to the same prompt. Those belong
    to no message: a conversation has one answer to each question."""
    first = store_turn(plan, idempotency_key=idempotency_key, request_digest=request_digest)
    further = range(1, plan.context.validated.request.n)
    return [first, *(_create_generation(plan, number) for number in further)]


@transaction.atomic
def store_turn(plan: TurnPlan, *, idempotency_key: str | None, request_digest: str) -> Generation:
    """Store a turn; the answer of a stored one is ``generation.message``.

    Raises ConversationChanged, the refusals of ``inference`` and KeyTaken; the transaction then leaves nothing.
    """
    context = plan.context
    conversation = context.conversation if context.new_messages else None
    if conversation:
        _lock(conversation, context)
    else:
        source = context.conversation_read
        if source and Conversation.objects.lock_unchanged(source) is None:
            raise ConversationChanged  # a later deletion waits for the lock, and finds this generation
    generation = _create_generation(plan, 0, idempotency_key=idempotency_key, request_digest=request_digest)
    if conversation is None:
        return generation
    _store_messages(plan)
    answer = Message.objects.create(
        conversation=conversation,
        position=context.new_messages[-1].position + 1,
        role=Role.ASSISTANT,
        generation=generation,
        rendered_with=plan.prompt.answer_key,
    )
    if plan.prompt.sources:
        Retrieval.objects.create(message=answer, sources=[source.as_wire() for source in plan.prompt.sources])
    return generation


def _lock(conversation: Conversation, context: TurnContext) -> None:
    """Create the row of a new conversation, or lock a stored one and check that it is as it was read."""
    origin = context.fork.source if context.fork else conversation
    # SQLite has no row locks and needs none: the transaction is immediate, other writers wait at its start.
    locked = None if origin._state.adding else Conversation.objects.lock_unchanged(origin)
    if conversation._state.adding:
        if context.fork and locked is None:
            raise ConversationChanged  # a deletion includes the copies of messages
        usage.check_conversations(context.validated.caller)
        if locked and locked.family is None:
            Conversation.objects.filter(pk=locked.pk).update(family=locked.pk)
        conversation.save(force_insert=True)
        return
    if locked is None or conversation.messages.count() != len(context.stored):
        raise ConversationChanged
    if locked.system_prompt != conversation.system_prompt:
        raise ConversationChanged  # the prompt was rendered under the former system prompt
    if locked.title:
        conversation.title, conversation.title_source = locked.title, locked.title_source
    conversation.archived = False
    conversation.save(update_fields=["title", "title_folded", "title_source", "archived", "updated_at"])


def _store_messages(plan: TurnPlan) -> None:
    """Store the new messages, a fork's copies before them, and the renderings of stored ones that changed. Mark the
    answer that the new messages follow."""
    fork = plan.context.fork
    changed = update_renderings(plan.prompt.groups, plan.prompt.exchanges)
    stored = [message for message in changed if not message._state.adding]
    Message.objects.bulk_create([*(fork.messages if fork else ()), *plan.context.new_messages])
    Message.objects.bulk_update(stored, ["rendered", "rendered_with"], batch_size=100)
    if plan.passages:
        MessagePassage.objects.bulk_create(plan.passages, batch_size=200)
        n_messages = len(plan.context.stored) + len(plan.context.new_messages)
        Conversation.objects.filter(pk=plan.context.new_messages[0].conversation_id).update(n_indexed=n_messages)
    if fork:
        Retrieval.objects.bulk_create(fork.retrievals)
        if fork.summary:
            fork.summary.save(force_insert=True)
    last = plan.context.stored[-1] if plan.context.stored else None
    # That of a fork is a copy without a generation.
    if last and last.generation_id:
        generations.mark_continued(generation_id=last.generation_id)
    if plan.prompt.history_note.get("messages_left_out"):
        raise_priority(plan.context.new_messages[0].conversation)


def _create_generation(
    plan: TurnPlan, number: int, *, idempotency_key: str | None = None, request_digest: str = ""
) -> Generation:
    """Create the generation of the answer with this number; all but the first are ephemeral."""
    validated, prompt, preparation = plan.context.validated, plan.prompt, plan.preparation
    request = validated.request.of_choice(number)
    is_stored = request.store and number == 0
    has_follow_up = prompt.may_need_summary or is_awaited(plan.context.conversation)
    may_follow = is_stored and preparation is None and has_follow_up
    return generations.create(
        owner=validated.caller.key,
        params=sequence_params(
            request,
            prompt.chat_format,
            n_prompt=len(prompt.ids),
            context_size=prompt.context_size,
            n_shared=prompt.n_shared,
            highest_label=prompt.highest_label,
            is_continued=bool(request.prefill),
        ),
        priority=request.priority,
        prompt_ids=None if preparation else prompt.ids,
        prepare_task=PREPARE_TASK if preparation else "",
        follow_up_task=AFTER_ANSWER_TASK if may_follow else "",
        timeout_secs=timeout_secs(request),
        session_id=request.session_id,
        details=plan.details(is_stored=is_stored),
        ephemeral=not is_stored,
        cache_tags=plan.context.cache_tags,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
        dialogue_digest=plan.context.new_messages[-1].history_digest if is_stored else "",
        max_of_owner=limits_of(validated.caller).answers_at_once,
    )
