"""Deletion of a response: its answer and its input leave the conversation; what later turns said stays."""

import uuid
from collections.abc import Sequence

from django.db.models import F

from chat.access.callers import Caller
from chat.enums import TitleSource
from chat.errors import ConversationBusy, NotFound
from chat.models import Conversation, Message, MessagePassage, Role, Summary
from chat.prompting.message_groups import dialogue_of
from chat.schemas.requests import RESPONSE
from chat.services.conversations import delete_conversation, renew_digests
from chat.services.purging import passing_generations
from chat.services.turn_context import title_of
from chat.transactions import one_transaction
from inference.models import Generation
from inference.queue import generations, purges

BEYOND = 2**30  # a position that no message has


@one_transaction
def delete_response(*, caller: Caller, generation: Generation) -> None:
    """Delete a response; a running one is cancelled. A conversation without other messages goes with it.

    Raises ConversationBusy while an answer after it is computed, which has it in its prompt.
    """
    conversation = Conversation.objects.of(caller.key).select_for_update().filter(messages__generation=generation)
    locked = conversation.first()
    if locked is None:
        raise NotFound("there is no such response", field="response_id")
    messages = list(locked.messages.in_order())
    index = next(index for index, message in enumerate(messages) if message.generation_id == generation.pk)
    # The answer and the messages that were stored with it.
    removed = messages[max(0, index - int(generation.details[RESPONSE]["n_input"])) : index + 1]
    rest = [*messages[: index + 1 - len(removed)], *messages[index + 1 :]]
    if not rest:
        delete_conversation(caller=caller, conversation_id=locked.pk)
        return
    if any(message.generation and not message.generation.is_ended for message in rest):
        raise ConversationBusy("an answer after this response is not finished", field="response_id")
    _delete(locked, generation, removed)
    _renew(locked, rest)


def _delete(conversation: Conversation, generation: Generation, removed: Sequence[Message]) -> None:
    """Delete rows and all that was made of them: summaries, KV states, token logs, unstored turns that read them."""
    summaries = conversation.summaries.filter(covers_until__gte=removed[0].position)
    ids: list[uuid.UUID] = [generation.pk, *summaries.generation_ids(), *passing_generations(conversation)]
    ids += conversation.summaries.making().generation_ids()
    conversation.summaries.making().delete()
    summaries.delete()
    Message.objects.filter(pk__in=[message.pk for message in removed]).delete()
    # Vectors of the rest may have been computed with a deleted text before them: a later turn makes them anew.
    MessagePassage.objects.filter(message__conversation=conversation).delete()
    Conversation.objects.filter(pk=conversation.pk).update(n_indexed=0)
    _close_gap(conversation, removed)
    generations.delete(generation_ids=ids)
    # What is computed from now on has another tag.
    Conversation.objects.filter(pk=conversation.pk).update(cache_epoch=F("cache_epoch") + 1)
    purges.request_purge(reason="response", tags=[conversation.cache_tag], generation_ids=ids)


def _close_gap(conversation: Conversation, removed: Sequence[Message]) -> None:
    """Move the messages after ``removed`` into its place: summaries count messages by their positions."""
    later = conversation.messages.filter(position__gt=removed[-1].position)
    # In two steps: positions are unique, and a database moves rows in any order.
    later.update(position=F("position") + BEYOND)
    moved = conversation.messages.filter(position__gt=BEYOND)
    moved.update(position=F("position") - BEYOND - len(removed))


def _renew(conversation: Conversation, rest: Sequence[Message]) -> None:
    """Update what covers all messages of the conversation: title, summary in use, digests."""
    summary: Summary | None = conversation.summaries.made().first()
    conversation.summary = summary.text if summary else ""
    if any(message.role == Role.USER for message in rest) and conversation.title_source != TitleSource.USER:
        conversation.title = title_of(dialogue_of(list(rest)))
        conversation.title_source = TitleSource.WORDS.value  # one of the model may repeat what was deleted
    conversation.save(update_fields=["title", "title_folded", "title_source", "summary", "updated_at"])
    renew_digests(conversation)
