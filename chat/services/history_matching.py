"""Finds the stored conversation that a sent history is the beginning of a new turn to, or has branched off from.

Clients without conversation ids send everything again with each message. A cumulative digest over the system
prompt and the user messages finds candidates; the texts of the answers decide.
"""

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chat.models import Conversation, Message, Role
from chat.prompting.message_groups import DialogueMessage

# Conversations that begin alike (the same question asked again and again) are compared from the newest.
MAX_CANDIDATES = 20
# Of those that a history may have branched off from, which are read as far as their questions are the same.
MAX_BRANCHED = 5


@dataclass(frozen=True, kw_only=True)
class HistoryMatch:
    """A conversation whose first messages, ``shared``, say what the first ``n_sent`` of a sent history say."""

    conversation: Conversation
    shared: list[Message]
    n_sent: int


def digests(system: str, user_texts: Sequence[str], *, after: str | None = None) -> list[str]:
    """The cumulative digest at each user message, going on from the digest ``after``."""
    last = after if after is not None else _digest(system)
    found: list[str] = []
    for text in user_texts:
        last = _digest(f"{last}\n{text}")
        found.append(last)
    return found


def find_continued_conversation(*, owner: str, system: str, earlier: Sequence[DialogueMessage]) -> Conversation | None:
    """The owner's latest conversation that consists of exactly these messages, all answers finished."""
    user_texts = [said.text for said in earlier if said.role == Role.USER]
    if not user_texts:
        return None
    wanted = Message.objects.filter(history_digest=digests(system, user_texts)[-1], conversation__owner=owner)
    ids = wanted.order_by("-conversation__updated_at").values_list("conversation_id", flat=True)[:MAX_CANDIDATES]
    # Many may begin alike; the digest leaves few, and the newest is the one that the client has before it.
    for conversation in Conversation.objects.filter(pk__in=list(ids), system_prompt=system).order_by("-updated_at"):
        messages = list(conversation.messages.in_order())
        finished = all(message.generation is None or message.generation.is_ended for message in messages)
        if finished and _essence([(Role(m.role), m.text) for m in messages]) == _essence(
            [(said.role, said.text) for said in earlier]
        ):
            return conversation
    return None


def find_shared_history(*, owner: str, system: str, earlier: Sequence[DialogueMessage]) -> HistoryMatch | None:
    """The owner's conversation that has most messages in common with these from the start, one answer at least."""
    user_texts = [said.text for said in earlier if said.role == Role.USER]
    codes = digests(system, user_texts)
    asked_alike = Message.objects.filter(history_digest__in=codes, conversation__owner=owner)
    # The furthest first; of a conversation only its furthest counts, and its answer may be the same too.
    ends: dict[uuid.UUID, int] = {}
    rows = asked_alike.filter(conversation__system_prompt=system).order_by("-position", "-conversation__updated_at")
    for conversation_id, position in rows.values_list("conversation_id", "position")[: MAX_BRANCHED * MAX_CANDIDATES]:
        ends.setdefault(conversation_id, position)
    conversations = Conversation.objects.in_bulk(list(ends)[:MAX_BRANCHED])
    best: HistoryMatch | None = None
    for conversation_id, conversation in conversations.items():
        messages = list(conversation.messages.in_order().filter(position__lte=ends[conversation_id] + 1))
        n_stored, n_sent = _n_in_common(
            ((Role(m.role), m.text) for m in messages), ((said.role, said.text) for said in earlier)
        )
        shared = messages[:n_stored]
        has_answer = any(message.role == Role.ASSISTANT for message in shared)
        if has_answer and (best is None or n_sent > best.n_sent):
            best = HistoryMatch(conversation=conversation, shared=shared, n_sent=n_sent)
    return best


def _n_in_common(stored: Iterable[tuple[Role, str]], sent: Iterable[tuple[Role, str]]) -> tuple[int, int]:
    """How many of the stored and of the sent messages say the same from the start; empty answers say nothing."""
    ours, theirs = _numbered(stored), _numbered(sent)
    n_stored = n_sent = 0
    for (our_number, our_words), (their_number, their_words) in zip(ours, theirs, strict=False):
        if our_words != their_words:
            break
        n_stored, n_sent = our_number, their_number
    return n_stored, n_sent


def _essence(messages: Iterable[tuple[Role, str]]) -> list[tuple[Role, str]]:
    """What has to be equal: user texts as they are, answers without surrounding space, no empty answers."""
    return [words for _, words in _numbered(messages)]


def _numbered(messages: Iterable[tuple[Role, str]]) -> list[tuple[int, tuple[Role, str]]]:
    """The essence with the number of each message, counted from 1."""
    stripped = [(role, text if role == Role.USER else text.strip()) for role, text in messages]
    return [(number, words) for number, words in enumerate(stripped, 1) if words[0] == Role.USER or words[1]]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
