"""Forking: an edited or regenerated question begins a new conversation with copies of the messages before it.

The copies keep their rendered tokens, so that the prompt of the fork has a prefix in the KV cache, and the newest
summary that covers no other messages. Stores nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chat.enums import TitleSource
from chat.models import Conversation, Message, Retrieval, Role, Summary
from chat.services.history_matching import digest_after_answer
from inference.token_ids import pack


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Unsaved rows of a new conversation, and the stored ``source``. ``messages`` are as ``in_order`` loads them."""

    source: Conversation
    conversation: Conversation
    messages: list[Message]
    retrievals: list[Retrieval]
    summary: Summary | None


def fork_conversation(source: Conversation, shared: Sequence[Message]) -> Fork:
    """Return a conversation that begins with ``shared``, the first messages of ``source``; their answers have ended."""
    summary = _inherited(source, shared)
    conversation = Conversation(
        owner=source.owner,
        title=source.title if shared else "",  # without common messages the new question names it
        title_source=source.title_source if shared else TitleSource.WORDS.value,
        system_prompt=source.system_prompt,
        strategy=source.strategy,
        recall=source.recall,
        summary=summary.text if summary else "",
        family=source.family or source.pk,
        forked_from=source,
        forked_at=len(shared),
    )
    if summary:
        summary.conversation = conversation
    copies = [_copy(message, conversation) for message in shared]
    # Digests of answers, which columns of their generations stand for in the source, are cumulative: each one needs
    # that of the message before.
    latest = ""
    for message, copy in zip(shared, copies, strict=True):
        if message.generation and message.generation.text_digest:
            copy.history_digest = digest_after_answer(latest, message.generation.text_digest)
        latest = copy.history_digest or latest
    pairs = zip(shared, copies, strict=True)
    retrievals = [message.retrieval.copy_for(copy) for message, copy in pairs if hasattr(message, "retrieval")]
    return Fork(source=source, conversation=conversation, messages=copies, retrievals=retrievals, summary=summary)


def _inherited(source: Conversation, shared: Sequence[Message]) -> Summary | None:
    """Copy the newest summary of shared messages alone; a newer one may cover messages that the fork lacks."""
    if not shared:
        return None
    summary = source.summaries.made().filter(covers_until__lte=shared[-1].position).first()
    if summary is None:
        return None
    return Summary(
        version=summary.version,
        state=summary.state,
        covers_until=summary.covers_until,
        text=summary.text,
        n_tokens=summary.n_tokens,
        note=summary.note,
        made_at=summary.made_at,
    )


def _copy(message: Message, conversation: Conversation) -> Message:
    """Copy text and tokens of an answer, too: its generation belongs to the original message."""
    rendered = bytes(message.rendered)
    # The tokens that the model sampled: encoding the text again may give others, which the KV cache does not have.
    if message.role == Role.ASSISTANT and message.generation and not rendered:
        rendered = pack(message.generation.output_ids)
    return Message(
        conversation=conversation,
        position=message.position,
        role=message.role,
        content=message.text,
        content_thought=message.thought,
        condensed=message.condensed,
        rendered=rendered,
        rendered_with=message.rendered_with,
        history_digest=message.history_digest,
    )
