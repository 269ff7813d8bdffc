"""Conversations that branch off: an edited or regenerated question changes nothing that is stored, it begins another
conversation with copies of what was said before it.

The copies keep what they were rendered to, so that the branch's prompt begins with tokens that are computed already,
and the newest summary that covers none but them. Nothing here is saved; whoever stores the turn does that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chat.models import Conversation, Message, Retrieval, Role, Summary
from inference.token_ids import pack


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Unsaved rows, all of the new conversation but ``source``. ``messages`` are as ``in_order`` loads them."""

    source: Conversation
    conversation: Conversation
    messages: list[Message]
    retrievals: list[Retrieval]
    summary: Summary | None


def fork_conversation(source: Conversation, shared: Sequence[Message]) -> Fork:
    """A conversation that begins with ``shared``, the first messages of ``source``, all of their answers ended."""
    summary = _inherited(source, shared)
    conversation = Conversation(
        owner=source.owner,
        title=source.title if shared else "",
        system_prompt=source.system_prompt,
        strategy=source.strategy,
        summary=summary.text if summary else "",
    )
    if summary:
        summary.conversation = conversation
    copies = [_copy(message, conversation) for message in shared]
    retrievals = [found for pair in zip(shared, copies, strict=True) if (found := _copy_of_retrieval(*pair))]
    return Fork(source=source, conversation=conversation, messages=copies, retrievals=retrievals, summary=summary)


def _inherited(source: Conversation, shared: Sequence[Message]) -> Summary | None:
    """A newer one may know what the branch never said."""
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
        made_at=summary.made_at,
    )


def _copy(message: Message, conversation: Conversation) -> Message:
    """An answer's text and tokens are its own here: its generation belongs to the message that it was made for."""
    rendered = bytes(message.rendered)
    if message.role == Role.ASSISTANT and message.generation and not rendered:
        rendered = pack(message.generation.output_ids)
    return Message(
        conversation=conversation,
        position=message.position,
        role=message.role,
        content=message.text,
        condensed=message.condensed,
        rendered=rendered,
        rendered_with=message.rendered_with,
        history_digest=message.history_digest,
    )


def _copy_of_retrieval(message: Message, copy: Message) -> Retrieval | None:
    found: Retrieval | None = getattr(message, "retrieval", None)
    if found is None:
        return None
    told = {name: getattr(found, name) for name in ("query", "filters", "understood", "hits", "sources", "n_hits")}
    return Retrieval(message=copy, latency_ms=found.latency_ms, error=found.error, note=found.note, **told)
