"""History matching: find the stored conversation that a sent history continues or shares its beginning with.

Clients without conversation ids send the whole history with each message. A cumulative digest over the system prompt
and all messages up to a user message finds candidates by index, and the digest of the answer to it chooses among them:
no text of a conversation that begins alike is read. Texts are compared in a normal form, since clients trim them,
change line breaks and compose characters.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import CharField, Exists, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce

from chat.models import Conversation, Message, Role
from chat.prompting.message_groups import DialogueMessage
from chat.querysets import MessageQuerySet
from inference.text_forms import answer_digest, compared, digest

# Candidates are equal as far as their digests say: the first is enough, but for one that is deleted meanwhile.
MAX_CANDIDATES = 5

TurnText = tuple[Role, str]


@dataclass(frozen=True, kw_only=True)
class HistoryMatch:
    """A conversation whose first messages equal the first ``n_sent`` of a sent history; ``is_whole`` if neither side
    has more."""

    conversation: Conversation
    messages: list[Message]
    n_sent: int
    is_whole: bool


def digests(system: str, dialogue: Iterable[TurnText], *, after: str | None = None) -> list[str]:
    """Return the cumulative digest at each user message. ``after`` is that of the user message before ``dialogue``."""
    latest = after if after is not None else digest(compared(system))
    cumulative: list[str] = []
    for role, text in dialogue:
        if role == Role.USER:
            latest = digest(f"{latest}\n{compared(text)}")
            cumulative.append(latest)
        elif answer := answer_digest(text):
            latest = digest(f"{latest}\0{answer}")
    return cumulative


def match_history(*, owner: str, system: str, history: Sequence[DialogueMessage]) -> HistoryMatch | None:
    """Return the owner's latest conversation that consists of exactly these messages, all answers ended; else the one
    that shares most of them from the start, at least one answer among them."""
    sent = [(message.role, message.text) for message in history]
    sent_digests = digests(system, sent)
    if not sent_digests:
        return None
    rows = Message.objects.filter(conversation__owner=owner)
    return _whole_match(rows, sent_digests[-1], sent) or _partial_match(rows, sent_digests, sent)


def _whole_match(rows: MessageQuerySet, last_digest: str, sent: list[TurnText]) -> HistoryMatch | None:
    later = Message.objects.filter(conversation=OuterRef("conversation"), position__gt=OuterRef("position"))
    candidates = rows.filter(~Exists(later.filter(role=Role.USER)), history_digest=last_digest)
    candidates = candidates.annotate(answer_digest=_digest_of_answer()).filter(answer_digest=_answer_digests(sent)[-1])
    # Of conversations that are equal, the newest is the one that the client has on its screen.
    ids = candidates.order_by("-conversation__updated_at").values_list("conversation_id", flat=True)
    for conversation_id in ids[:MAX_CANDIDATES]:
        messages = list(Message.objects.filter(conversation_id=conversation_id).in_order())
        is_ended = all(message.generation is None or message.generation.is_ended for message in messages)
        if is_ended and messages and _comparable(_texts(messages)) == _comparable(sent):
            conversation = Conversation.objects.filter(pk=conversation_id).first()
            if conversation:
                return HistoryMatch(conversation=conversation, messages=messages, n_sent=len(sent), is_whole=True)
    return None


def _partial_match(rows: MessageQuerySet, sent_digests: list[str], sent: list[TurnText]) -> HistoryMatch | None:
    best: HistoryMatch | None = None
    ends = _ends(rows.filter(history_digest__in=sent_digests), sent_digests, _answer_digests(sent))
    conversations = Conversation.objects.in_bulk(list(ends))
    for conversation_id, position in ends.items():
        if conversation_id not in conversations:
            continue  # deleted meanwhile
        loaded = Message.objects.filter(conversation_id=conversation_id, position__lte=position + 1)
        messages = list(loaded.in_order())
        n_stored, n_sent = _n_in_common(_texts(messages), sent)
        shared = messages[:n_stored]
        has_answer = any(message.role == Role.ASSISTANT for message in shared)
        if has_answer and (best is None or n_sent > best.n_sent):
            conversation = conversations[conversation_id]
            best = HistoryMatch(conversation=conversation, messages=shared, n_sent=n_sent, is_whole=False)
    return best


def _ends(rows: MessageQuerySet, sent_digests: list[str], sent_answers: list[str]) -> dict[uuid.UUID, int]:
    """Return candidates with the position of their last user message that agrees: of those with the most messages in
    common, first the ones whose answer to it agrees as well."""
    last_digest = rows.order_by("-position").values_list("history_digest", flat=True).first()
    if last_digest is None:
        return {}
    answer = sent_answers[sent_digests.index(last_digest)]
    newest = rows.filter(history_digest=last_digest).order_by("-conversation__updated_at")
    agreeing = newest.annotate(answer_digest=_digest_of_answer()).filter(answer_digest=answer) if answer else newest
    columns = ("conversation_id", "position")
    return dict([*agreeing.values_list(*columns)[:MAX_CANDIDATES], *newest.values_list(*columns)[:MAX_CANDIDATES]])


def _digest_of_answer() -> Coalesce:
    """Expression over user messages: the digest of the answer; empty for none, a blank or an unfinished one."""
    following = Message.objects.filter(conversation=OuterRef("conversation"), role=Role.ASSISTANT)
    next_one = following.filter(position=OuterRef("position") + 1)
    # The text of an answer that was generated here is that of its generation.
    digest_of_next = next_one.annotate(digest=Coalesce("generation__text_digest", "content_digest")).values("digest")
    return Coalesce(Subquery(digest_of_next[:1]), Value(""), output_field=CharField())


def _answer_digests(sent: list[TurnText]) -> list[str]:
    """Return the digest of the answer to each user message of a sent history, empty for none."""
    sent_answers: list[str] = []
    for role, text in sent:
        if role == Role.USER:
            sent_answers.append("")
        elif sent_answers and not sent_answers[-1]:
            sent_answers[-1] = answer_digest(text)
    return sent_answers


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
    """The texts that have to be equal, in normal form and numbered from 1, without empty answers."""
    pairs = [(role, compared(text)) for role, text in messages]
    return [(number, pair) for number, pair in enumerate(pairs, 1) if pair[0] == Role.USER or pair[1]]
