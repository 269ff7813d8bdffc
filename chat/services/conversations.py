"""Stored conversations of a caller: list, create, change, delete, export."""

import uuid
from typing import Any

from chat.access import usage
from chat.access.callers import Caller
from chat.enums import Strategy, TitleSource
from chat.error_translation import translated
from chat.errors import NotFound
from chat.models import Conversation, Message, Role
from chat.querysets import ConversationQuerySet, SummaryQuerySet
from chat.schemas.answers import message_body, summary_body
from chat.services.history_matching import cumulative_digests
from chat.services.markdown_text import one_line, quoted
from chat.services.purging import passing_generations, purge_conversation
from chat.transactions import one_transaction
from inference.queue import generations


def conversations_of(caller: Caller) -> ConversationQuerySet:
    """Return the caller's own, the most recently updated first."""
    return Conversation.objects.of(caller.key)


def get_conversation(*, caller: Caller, conversation_id: uuid.UUID) -> Conversation:
    """Raises NotFound, also for a conversation of another owner."""
    with translated():
        conversation = conversations_of(caller).filter(pk=conversation_id).first()
    if conversation is None:
        raise NotFound("there is no such conversation", field="conversation_id")
    return conversation


def create_conversation(
    *,
    caller: Caller,
    title: str = "",
    system_prompt: str = "",
    strategy: Strategy = Strategy.SUMMARIZE,
    keep: bool = False,
    archived: bool = False,
    recall: bool = True,
) -> Conversation:
    with translated():
        usage.check_conversations(caller)
        return Conversation.objects.create(
            owner=caller.key,
            title=title,
            title_source=title_source_of(title).value,
            system_prompt=system_prompt,
            strategy=strategy.value,
            keep=keep,
            archived=archived,
            recall=recall,
        )


@one_transaction
def update_conversation(
    *,
    caller: Caller,
    conversation_id: uuid.UUID,
    title: str | None = None,
    system_prompt: str | None = None,
    strategy: Strategy | None = None,
    keep: bool | None = None,
    archived: bool | None = None,
    recall: bool | None = None,
) -> Conversation:
    """Set the fields that are not None. A new system prompt applies from the next turn on.

    Archiving is no continuation: the conversation keeps its place among its versions and in lists.
    """
    is_changed = any(value is not None for value in (title, system_prompt, strategy, keep, recall))
    # Locked, so that a concurrent turn is stored under one system prompt, with the digests that belong to it.
    conversations_of(caller).select_for_update().filter(pk=conversation_id).first()
    conversation = get_conversation(caller=caller, conversation_id=conversation_id)
    if title is not None:
        conversation.title = title
        conversation.title_source = title_source_of(title).value
    if strategy is not None:
        conversation.strategy = strategy.value
    if keep is not None:
        conversation.keep = keep
    if archived is not None:
        conversation.archived = archived
    if recall is not None:
        conversation.recall = recall
    if system_prompt is not None and system_prompt != conversation.system_prompt:
        conversation.system_prompt = system_prompt
        renew_digests(conversation)
    names = ["title", "title_folded", "title_source", "system_prompt", "strategy", "keep", "archived", "recall"]
    conversation.save(update_fields=[*names, "updated_at"] if is_changed else ["archived"])
    return conversation


def title_source_of(title: str) -> TitleSource:
    """Return the source of a title that a client sets; an empty one leaves it to the first question."""
    return TitleSource.USER if title else TitleSource.WORDS


def summaries_of(*, caller: Caller, conversation_id: uuid.UUID) -> SummaryQuerySet:
    """Return all versions, the newest first, with failed and unfinished ones."""
    conversation = get_conversation(caller=caller, conversation_id=conversation_id)
    return conversation.summaries.order_by("-version")


def versions_of(*, caller: Caller, conversation_id: uuid.UUID) -> ConversationQuerySet:
    """Return the conversation and all that forked from it or with it, the oldest first."""
    conversation = get_conversation(caller=caller, conversation_id=conversation_id)
    same = {"pk": conversation.pk} if conversation.family is None else {"family": conversation.family}
    return conversations_of(caller).filter(**same).order_by("created_at", "pk")


@one_transaction
def delete_conversation(*, caller: Caller, conversation_id: uuid.UUID) -> None:
    """Delete a conversation, with whatever holds its tokens; running generations are cancelled."""
    conversation = get_conversation(caller=caller, conversation_id=conversation_id)
    # Locked: a concurrent turn is deleted here, or finds no conversation to continue.
    Conversation.objects.select_for_update().filter(pk=conversation.pk).first()
    ids = [*conversation.messages.all().generation_ids(), *conversation.summaries.all().generation_ids()]
    ids += passing_generations(conversation)
    _join_forks(conversation)
    conversation.delete()
    generations.delete(generation_ids=ids)
    purge_conversation(conversation_id, generation_ids=ids)


def _join_forks(conversation: Conversation) -> None:
    """Let the forks of a conversation that is deleted branch off its origin, or off its first fork."""
    first, *rest = [*conversation.forks.order_by("created_at", "pk")] or [None]
    if first is None:
        return
    parent, n_shared = conversation.forked_from, conversation.forked_at
    if parent is None:
        parent, n_shared = first, first.forked_at
        first.forked_from, first.forked_at = None, None
    else:
        rest.append(first)
    for fork in rest:
        fork.forked_from, fork.forked_at = parent, min(fork.forked_at or 0, n_shared or 0)
    Conversation.objects.bulk_update([first, *rest], ["forked_from", "forked_at"])


def export_conversation(*, caller: Caller, conversation_id: uuid.UUID) -> dict[str, Any]:
    """Return the whole conversation as JSON values."""
    conversation = get_conversation(caller=caller, conversation_id=conversation_id)
    return {
        "id": str(conversation.pk),
        "title": conversation.title,
        "title_source": conversation.title_source,
        "archived": conversation.archived,
        "summary": conversation.summary,
        "summaries": [summary_body(summary) for summary in conversation.summaries.all()],
        "system_prompt": conversation.system_prompt,
        "created_at": conversation.created_at.isoformat(),
        "updated_at": conversation.updated_at.isoformat(),
        "messages": [message_body(message) for message in conversation.messages.in_order()],
    }


def export_markdown(*, caller: Caller, conversation_id: uuid.UUID) -> str:
    """Return the conversation as a page: a heading for each speaker, sources below their answers."""
    conversation = get_conversation(caller=caller, conversation_id=conversation_id)
    parts = [f"# {one_line(conversation.title) or 'Conversation'}", f"_{conversation.created_at:%Y-%m-%d %H:%M} UTC_"]
    if conversation.system_prompt:
        parts += ["## System prompt", quoted(conversation.system_prompt)]
    for message in conversation.messages.in_order():
        parts.append(f"## {'You' if message.role == Role.USER else 'Gemma'}")
        # Quoted: a heading within a message must not look like the start of another message.
        parts.append(quoted(message.text.strip()) or "_(no answer)_")
        body = message_body(message)
        if body["status"] not in ("complete", "interrupted"):
            parts.append(f"_{body['status']}_")
        sources = [f"- [{source['label']}] {one_line(_described(source))}" for source in body["sources"]]
        if sources:
            parts.append("Sources:\n\n" + "\n".join(sources))
    return "\n\n".join(parts) + "\n"


def _described(source: dict[str, Any]) -> str:
    facts = ", ".join(str(source[name]) for name in ("title", "speaker", "time", "emotion") if source.get(name))
    return f"{facts}: {source['text']}" if facts else source["text"]


def renew_digests(conversation: Conversation) -> None:
    """Update the digests, which cover the system prompt: history matching then finds the new one."""
    rows = list(conversation.messages.in_order())
    texts = [(Role(row.role), row.text) for row in rows]
    latest = ""
    for row, cumulative in zip(
        rows, cumulative_digests(conversation.owner, conversation.system_prompt, texts), strict=True
    ):
        if row.generation:
            row.generation.dialogue_digest = latest
        else:
            row.history_digest = cumulative
        latest = cumulative or latest
    Message.objects.bulk_update(rows, ["history_digest"], batch_size=100)
    generations.set_dialogue_digests([row.generation for row in rows if row.generation])
