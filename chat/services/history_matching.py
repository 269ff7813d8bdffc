"""History matching: find the stored conversation that a sent history continues or shares its beginning with.

Clients without conversation ids send the whole history with each message. A cumulative digest over the system prompt
and the user messages finds candidates by index; the texts of the answers decide.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chat.models import Conversation, Message, Role
from chat.prompting.message_groups import DialogueMessage

# Conversations with the same user messages are compared from the newest.
MAX_CANDIDATES = 20
# Conversations that share only a beginning are loaded up to the last user message that agrees.
MAX_PARTIAL = 5

TurnText = tuple[Role, str]


@dataclass(frozen=True, kw_only=True)
class HistoryMatch:
    """A conversation whose first messages equal the first ``n_sent`` of a sent history; ``is_whole`` if neither side
    has more."""

    conversation: Conversation
    messages: list[Message]
    n_sent: int
    is_whole: bool


def digests(system: str, user_texts: Sequence[str], *, after: str | None = None) -> list[str]:
    """Return the cumulative digest at each user message, starting from the digest ``after``."""
    digest = after if after is not None else _digest(system)
    cumulative: list[str] = []
    for text in user_texts:
        digest = _digest(f"{digest}\n{text}")
        cumulative.append(digest)
    return cumulative


def match_history(*, owner: str, system: str, history: Sequence[DialogueMessage]) -> HistoryMatch | None:
    """Return the owner's latest conversation that consists of exactly these messages, all answers ended; else the one
    that shares most of them from the start, at least one answer among them."""
    sent_digests = digests(system, [message.text for message in history if message.role == Role.USER])
    if not sent_digests:
        return None
    sent = [(message.role, message.text) for message in history]
    return _whole_match(owner, system, sent_digests[-1], sent) or _partial_match(owner, system, sent_digests, sent)


def _whole_match(owner: str, system: str, digest: str, sent: list[TurnText]) -> HistoryMatch | None:
    rows = Message.objects.filter(history_digest=digest, conversation__owner=owner)
    ids = rows.order_by("-conversation__updated_at").values_list("conversation_id", flat=True)[:MAX_CANDIDATES]
    # Of conversations that are equal, the newest is the one that the client has on its screen.
    for conversation in Conversation.objects.filter(pk__in=list(ids), system_prompt=system).order_by("-updated_at"):
        messages = list(conversation.messages.in_order())
        is_ended = all(message.generation is None or message.generation.is_ended for message in messages)
        if is_ended and _comparable(_texts(messages)) == _comparable(sent):
            return HistoryMatch(conversation=conversation, messages=messages, n_sent=len(sent), is_whole=True)
    return None


def _partial_match(owner: str, system: str, sent_digests: list[str], sent: list[TurnText]) -> HistoryMatch | None:
    rows = Message.objects.filter(
        history_digest__in=sent_digests, conversation__owner=owner, conversation__system_prompt=system
    ).order_by("-position", "-conversation__updated_at")
    # By conversation, the position of its last user message that agrees; the answer after it may agree as well.
    ends: dict[uuid.UUID, int] = {}
    for conversation_id, position in rows.values_list("conversation_id", "position")[: MAX_PARTIAL * MAX_CANDIDATES]:
        ends.setdefault(conversation_id, position)
    conversations = Conversation.objects.in_bulk(list(ends)[:MAX_PARTIAL])
    best: HistoryMatch | None = None
    for conversation_id, conversation in conversations.items():
        messages = list(conversation.messages.in_order().filter(position__lte=ends[conversation_id] + 1))
        n_stored, n_sent = _n_in_common(_texts(messages), sent)
        shared = messages[:n_stored]
        has_answer = any(message.role == Role.ASSISTANT for message in shared)
        if has_answer and (best is None or n_sent > best.n_sent):
            best = HistoryMatch(conversation=conversation, messages=shared, n_sent=n_sent, is_whole=False)
    return best


def _texts(messages: Iterable[Message]) -> list[TurnText]:
    return [(Role(message.role), message.text) for message in messages]


def _n_in_common(stored: Iterable[TurnText], sent: Iterable[TurnText]) -> tuple[int, int]:
    """Count the stored and the sent messages that agree from the start; empty answers are skipped."""
    n_stored = n_sent = 0
    for (stored_number, stored_text), (sent_number, sent_text) in zip(
        _comparable_numbered(stored), _comparable_numbered(sent), strict=False
    ):
        if stored_text != sent_text:
            break
        n_stored, n_sent = stored_number, sent_number
    return n_stored, n_sent


def _comparable(messages: Iterable[TurnText]) -> list[TurnText]:
    return [text for _, text in _comparable_numbered(messages)]


def _comparable_numbered(messages: Iterable[TurnText]) -> list[tuple[int, TurnText]]:
    """The texts that have to be equal, numbered from 1: user texts as they are, answers stripped, no empty answers."""
    stripped = [(role, text if role == Role.USER else text.strip()) for role, text in messages]
    return [(number, pair) for number, pair in enumerate(stripped, 1) if pair[0] == Role.USER or pair[1]]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
