"""Long conversations in tests: turns until a summary is due, and the summariser's answers as a worker leaves them."""

from typing import Any
from uuid import UUID

from chat.models import Conversation, Summary, SummaryState
from chat.services.turns import Turn
from chat.summarization import rolling
from inference.models import Generation, Status
from tests.chat.conversing import chat, finish, generation_of, more, texts_of

CONTEXT = 6000


def talk(
    n_turns: int,
    turn: Turn | None = None,
    *,
    first: int = 0,
    **options: Any,  # noqa: ANN401
) -> Turn:
    """Turns of about 350 tokens each, answered; returns the last."""
    for number in range(first, first + n_turns):
        text = f"question {number} ".ljust(150, "u")
        turn = more(turn, text, max_tokens=60, **options) if turn else chat(f"u:{text}", max_tokens=60, **options)
        finish(turn, f"answer {number} ".ljust(150, "v"))
    assert turn is not None
    return turn


def follow(turn: Turn) -> None:
    """Do the task of the wake-up message at the end of the answer."""
    rolling.after_answer(turn.generation_id)


def _id(turn: Turn) -> UUID:
    assert turn.conversation_id is not None
    return turn.conversation_id


def conversation_of(turn: Turn) -> Conversation:
    return Conversation.objects.get(pk=_id(turn))


def being_made(turn: Turn) -> Summary:
    return Summary.objects.select_related("generation").get(conversation_id=_id(turn), state=SummaryState.MAKING)


def pieces_left(turn: Turn) -> bool:
    return Summary.objects.filter(conversation_id=_id(turn), state=SummaryState.MAKING).exists()


def read_piece(turn: Turn, text: str = "They talked.", *, status: Status = Status.COMPLETE) -> Generation:
    """End the summariser's generation with this text, and do the task of its wake-up message."""
    generation = being_made(turn).generation
    assert generation is not None
    finish(Turn(generation_id=generation.pk), text, status=status)
    rolling.after_piece(generation.pk)
    return generation


def read_all(turn: Turn, text: str = "They talked.") -> None:
    while pieces_left(turn):
        read_piece(turn, text)


def talk_until_due(**options: Any) -> Turn:  # noqa: ANN401
    """A conversation whose last answer has made a summary due; it has been begun."""
    turn = talk(1, **options)
    for number in range(1, 40):
        follow(turn)
        if pieces_left(turn):
            return turn
        turn = talk(1, turn, first=number, **options)
    raise AssertionError("no summary was due after 40 turns")


def summarized(text: str = "They talked.", **options: Any) -> Turn:  # noqa: ANN401
    """A conversation with a summary."""
    turn = talk_until_due(**options)
    read_all(turn, text)
    return turn


def note_of(turn: Turn) -> dict[str, object]:
    note: dict[str, object] = generation_of(turn).details["history"]
    return note


def sent_history(turn: Turn, *, drop: int = 0) -> list[str]:
    """Return the history that a client without ids sends: all messages but the last ``drop``."""
    rows = texts_of(turn.conversation_id)
    return [f"{role[0]}:{text}" for role, text in rows[: len(rows) - drop]]
