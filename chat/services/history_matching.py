"""History matching: find the stored conversation that a sent history continues or shares its beginning with.

Clients without conversation ids send the whole history with each message. A cumulative digest over the system prompt
and the user messages finds candidates by index; the texts of the answers decide. Texts are compared in a normal form,
since clients trim them, change line breaks and compose characters.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Subquery, TextField, Value
from django.db.models.functions import Coalesce

from chat.models import Conversation, Message, Role
from chat.prompting.message_groups import DialogueMessage
from chat.querysets import MessageQuerySet
from inference.text_forms import compared, digest

# Conversations that share only a beginning are loaded up to the last user message that agrees: so many of those whose
# answer to it agrees as well, and of the others.
MAX_PARTIAL = 5
# Candidates are read in chunks, the likeliest first.
CHUNK_SIZE = 100

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
    latest = after if after is not None else digest(compared(system))
    cumulative: list[str] = []
    for text in user_texts:
        latest = digest(f"{latest}\n{compared(text)}")
        cumulative.append(latest)
    return cumulative


def match_history(*, owner: str, system: str, history: Sequence[DialogueMessage]) -> HistoryMatch | None:
    """Return the owner's latest conversation that consists of exactly these messages, all answers ended; else the one
    that shares most of them from the start, at least one answer among them."""
    sent = [(message.role, message.text) for message in history]
    sent_digests = digests(system, [text for role, text in sent if role == Role.USER])
    if not sent_digests:
        return None
    rows = Message.objects.filter(conversation__owner=owner)
    return _whole_match(rows, sent_digests[-1], sent) or _partial_match(rows, sent_digests, sent)


def _whole_match(rows: MessageQuerySet, digest: str, sent: list[TurnText]) -> HistoryMatch | None:
    later = Message.objects.filter(conversation=OuterRef("conversation"), position__gt=OuterRef("position"))
    candidates = rows.filter(~Exists(later.filter(role=Role.USER)), history_digest=digest)
    # Many conversations may begin alike: only those whose answer agrees are loaded. Of conversations that are equal,
    # the newest is the one that the client has on its screen.
    answer = _answers(sent)[-1]
    for conversation_id, _, _, stored_answer in _with_answers(candidates.order_by("-conversation__updated_at")):
        if compared(stored_answer) not in ("", answer):
            continue
        messages = list(Message.objects.filter(conversation_id=conversation_id).in_order())
        is_ended = all(message.generation is None or message.generation.is_ended for message in messages)
        if is_ended and messages and _comparable(_texts(messages)) == _comparable(sent):
            conversation = Conversation.objects.filter(pk=conversation_id).first()
            if conversation:
                return HistoryMatch(conversation=conversation, messages=messages, n_sent=len(sent), is_whole=True)
    return None


def _partial_match(rows: MessageQuerySet, sent_digests: list[str], sent: list[TurnText]) -> HistoryMatch | None:
    best: HistoryMatch | None = None
    ends = _ends(rows.filter(history_digest__in=sent_digests), sent_digests, _answers(sent))
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


def _ends(rows: MessageQuerySet, sent_digests: list[str], answers: list[str]) -> dict[uuid.UUID, int]:
    """Return the candidates, those with the most agreeing user messages first, with the position of the last one."""
    agreeing, differing, seen_ids = dict[uuid.UUID, int](), dict[uuid.UUID, int](), set[uuid.UUID]()
    sent_answers = dict(zip(sent_digests, answers, strict=True))
    for conversation_id, position, user_digest, answer in _with_answers(
        rows.order_by("-position", "-conversation__updated_at")
    ):
        if conversation_id in seen_ids:
            continue
        seen_ids.add(conversation_id)
        is_agreeing = compared(answer) == sent_answers[user_digest] != ""
        candidates = agreeing if is_agreeing else differing
        if len(candidates) < MAX_PARTIAL:
            candidates[conversation_id] = position
        if len(agreeing) == MAX_PARTIAL:
            break
    return agreeing | differing


def _with_answers(rows: MessageQuerySet) -> Iterator[tuple[uuid.UUID, int, str, str]]:
    """Yield conversation, position and digest of user messages, each with the text of the answer to it."""
    following = Message.objects.filter(
        conversation=OuterRef("conversation"), position=OuterRef("position") + 1, role=Role.ASSISTANT
    )
    # An answer generated here has its text in its generation.
    text = Coalesce("generation__text", "content", output_field=TextField())
    texts = Subquery(following.annotate(answer=text).values("answer")[:1], output_field=TextField())
    annotated = rows.annotate(answer=Coalesce(texts, Value(""), output_field=TextField()))
    yield from annotated.values_list("conversation_id", "position", "history_digest", "answer").iterator(CHUNK_SIZE)


def _answers(sent: list[TurnText]) -> list[str]:
    """Return the normalized answer to each user message of a sent history, empty for none."""
    answers: list[str] = []
    for role, text in sent:
        if role == Role.USER:
            answers.append("")
        elif answers and not answers[-1]:
            answers[-1] = compared(text)
    return answers


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
