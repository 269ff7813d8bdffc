"""History matching: find the stored conversation that a sent history continues or shares its beginning with.

Clients without conversation ids send the whole history with each message. A cumulative digest over owner, system prompt
and all messages up to a message finds candidates by index: of a question it is a column of its row, and together with
the digest of the answer it finds the answer's row. However many conversations begin alike, a few rows are read. Texts
are compared in a normal form, since clients trim them, change line breaks and compose characters.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chat.models import Conversation, Message, Role
from chat.prompting.message_groups import DialogueMessage
from inference.models import Generation
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


@dataclass(frozen=True)
class _Question:
    """A user message of a sent history: the digest up to it, and the digest of its answer, empty for none."""

    digest: str
    answer_digest: str


def cumulative_digests(owner: str, system: str, dialogue: Iterable[TurnText], *, after: str | None = None) -> list[str]:
    """Return the cumulative digest at each message, empty at a blank answer. ``after`` is that of the message before
    ``dialogue``."""
    latest = after if after is not None else digest(f"{owner}\n{compared(system)}")
    cumulative: list[str] = []
    for role, text in dialogue:
        if role == Role.USER:
            latest = digest(f"{latest}\n{compared(text)}")
            cumulative.append(latest)
        elif answer := answer_digest(text):
            latest = digest_after_answer(latest, answer)
            cumulative.append(latest)
        else:
            cumulative.append("")
    return cumulative


def digest_after_answer(latest: str, answer: str) -> str:
    """Return the cumulative digest at an answer, from that at the message before and the answer's own."""
    return digest(f"{latest}\0{answer}")


def match_history(*, owner: str, system: str, history: Sequence[DialogueMessage]) -> HistoryMatch | None:
    """Return the owner's latest conversation that consists of exactly these messages, all answers ended; else the one
    that shares most of them from the start, at least one answer among them."""
    sent = [(message.role, message.text) for message in history]
    questions: list[_Question] = []
    for (role, text), cumulative in zip(sent, cumulative_digests(owner, system, sent), strict=True):
        if role == Role.USER:
            questions.append(_Question(cumulative, ""))
        elif questions and not questions[-1].answer_digest:
            questions[-1] = _Question(questions[-1].digest, answer_digest(text))
    if not questions:
        return None
    return _whole_match(questions[-1], sent) or _partial_match(questions, sent)


def _whole_match(last: _Question, sent: list[TurnText]) -> HistoryMatch | None:
    # Of conversations that are equal, the newest is the one that the client has on its screen.
    answers = Generation.objects.last_answers(last.digest, last.answer_digest)[:MAX_CANDIDATES]
    for conversation_id, _ in _places(answers):
        # Before its messages: a text that is deleted after this is noticed by the epoch.
        conversation = Conversation.objects.filter(pk=conversation_id).first()
        if conversation is None:
            continue  # deleted meanwhile
        messages = list(conversation.messages.in_order())
        is_ended = all(message.generation is None or message.generation.is_ended for message in messages)
        if is_ended and messages and _comparable(_texts(messages)) == _comparable(sent):
            return HistoryMatch(conversation=conversation, messages=messages, n_sent=len(sent), is_whole=True)
    return None


def _partial_match(questions: list[_Question], sent: list[TurnText]) -> HistoryMatch | None:
    question = _last_stored(questions)
    if question is None:
        return None
    for conversation_id, position in _candidates(question):
        conversation = Conversation.objects.filter(pk=conversation_id).first()
        if conversation is None:
            continue  # deleted meanwhile
        messages = list(conversation.messages.filter(position__lte=position).in_order())
        n_stored, n_sent = _n_in_common(_texts(messages), sent)
        shared = messages[:n_stored]
        has_answer = any(message.role == Role.ASSISTANT for message in shared)
        match = HistoryMatch(conversation=conversation, messages=shared, n_sent=n_sent, is_whole=False)
        return match if has_answer else None
    return None


def _last_stored(questions: list[_Question]) -> _Question | None:
    """Return the last question that any conversation has; one that has it has those before it, too."""
    n_stored, n_unknown = 0, len(questions)
    while n_stored < n_unknown:
        middle = (n_stored + n_unknown) // 2
        if Message.objects.at_digest(questions[middle].digest).exists():
            n_stored = middle + 1
        else:
            n_unknown = middle
    return questions[n_stored - 1] if n_stored else None


def _candidates(question: _Question) -> Iterator[tuple[uuid.UUID, int]]:
    """Yield conversations that have the question, with the position of the last message to compare: those that also
    have its answer, generated or sent, before the others."""
    columns = ("conversation_id", "position")
    if question.answer_digest:
        yield from _places(Generation.objects.answers(question.digest, question.answer_digest)[:MAX_CANDIDATES])
        after_answer = digest_after_answer(question.digest, question.answer_digest)
        yield from Message.objects.at_digest(after_answer).values_list(*columns)[:MAX_CANDIDATES]
    for conversation_id, position in Message.objects.at_digest(question.digest).values_list(*columns)[:MAX_CANDIDATES]:
        yield conversation_id, position + 1


def _places(answers: Iterable[Generation]) -> list[tuple[uuid.UUID, int]]:
    """Return conversation and position of each answer, in their order."""
    ids = [answer.pk for answer in answers]
    rows = Message.objects.filter(generation__in=ids).values_list("generation_id", "conversation_id", "position")
    places = {generation_id: (conversation_id, position) for generation_id, conversation_id, position in rows}
    return [places[generation_id] for generation_id in ids if generation_id in places]


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
