"""A message longer than the context: read in parts when asked for, 413 otherwise."""

from collections.abc import Callable

import pytest

from chat.enums import Strategy
from chat.errors import ContextOverflow
from chat.models import Conversation, Message
from chat.prompting.text_splitter import beginning, pieces
from chat.services import turns
from chat.services.turns import Turn
from chat.summarization.long_input import AFTER_PART_TASK
from inference.config.tokenizer import Tokenizer
from inference.models import Generation, Priority, Status
from inference.runtime.redis_client import log_key, shared_client
from inference.token_stream import redis_log
from tests.chat.conversing import chat, finish, generation_of, more, prompt_of, texts_of
from tests.chat.folding import CONTEXT, follow, pieces_left, read_all, talk
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

LONG = "\n\n".join(f"Paragraph {number} says something. " + "It goes on. " * 20 for number in range(60))


@pytest.fixture(autouse=True)
def _small_context(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT))


def asked_for() -> Turn:
    turn = chat(f"u:{LONG}", strategy=Strategy.SUMMARIZE, max_tokens=60)
    assert turn.needs_preparation
    turns.prepare_turn(generation_id=turn.generation_id)
    return turn


def parts_waiting() -> list[Generation]:
    return list(Generation.objects.filter(follow_up_task=AFTER_PART_TASK, status=Status.QUEUED).order_by("created_at"))


def read(part: Generation, text: str, *, status: Status = Status.COMPLETE) -> None:
    finish(Turn(generation_id=part.pk), text, status=status)
    turns.continue_long_input(generation_id=part.pk)


@pytest.mark.parametrize("strategy", [None, Strategy.TRUNCATE, Strategy.ERROR])
def test_without_being_asked_for_it_is_refused_and_nothing_is_stored(strategy: Strategy | None) -> None:
    with pytest.raises(ContextOverflow) as caught:
        chat(f"u:{LONG}", strategy=strategy)
    assert caught.value.extra["prompt_tokens"] > len(LONG)
    assert not Conversation.objects.exists()


def test_it_is_read_part_by_part_and_answered_from_the_notes() -> None:
    turn = asked_for()
    parts = parts_waiting()
    assert len(parts) >= 4
    assert all(part.priority == Priority.INTERACTIVE and part.ephemeral for part in parts)
    prompts = [shown(part.prompt_ids) for part in parts]
    for number in range(60):
        assert sum(f"Paragraph {number} says" in prompt for prompt in prompts) == 1
    for number, part in enumerate(parts):
        assert generation_of(turn).status == Status.PREPARING
        read(part, f"notes {number}")
    prompt = shown(prompt_of(turn))
    assert prompt.index("Paragraph 0 says") < prompt.index("> notes 0") < prompt.index(f"> notes {len(parts) - 1}")
    assert prompt.count("It goes on.") > 10, "the end of the message stands there word for word"
    assert texts_of(turn.conversation_id)[0] == ("user", LONG), "what was sent stays as it was"
    finish(turn, "Answered.")
    following = more(turn, "And now?", max_tokens=60)
    assert shown(prompt_of(following)).count("> notes 0") == 1


def test_a_conversation_whose_first_message_overflows_goes_on_and_is_folded() -> None:
    turn = asked_for()
    for number, part in enumerate(parts_waiting()):
        read(part, f"notes {number}")
    finish(turn, "Answered.")
    number = 1
    while not pieces_left(turn):
        follow(turn)
        turn = talk(1, turn, first=number)
        number += 1
        assert number < 20
    read_all(turn, "They talked.")
    prompt = shown(prompt_of(more(turn, "and now?", max_tokens=60)))
    assert "Paragraph 0 says something" in prompt, "the beginning of the first message stays, whatever it is part of"
    assert "> They talked." in prompt
    assert len(prompt) < CONTEXT
    assert texts_of(turn.conversation_id)[0] == ("user", LONG)


def test_progress_is_told_to_those_who_wait() -> None:
    turn = asked_for()
    parts = parts_waiting()
    for part in parts[:-1]:
        read(part, "notes")
    stream = shared_client().xrange(log_key(turn.generation_id))
    told = [redis_log.decode(fields[redis_log.FIELD]) for _, fields in stream]
    assert [(entry.state, entry.progress) for entry in told] == [  # type: ignore[union-attr]
        ("summarizing", round(number / len(parts), 3)) for number in range(len(parts))
    ]


def test_notes_that_are_too_long_are_read_again() -> None:
    turn = asked_for()
    for part in parts_waiting():
        read(part, "long notes. " * 60)
    second = parts_waiting()
    assert second, "a level of its own"
    assert "> long notes." in shown(second[0].prompt_ids)
    for part in second:
        read(part, "short")
    assert "> short" in shown(prompt_of(turn))


def test_coming_twice_asks_once() -> None:
    turn = asked_for()
    n_parts = len(parts_waiting())
    turns.prepare_turn(generation_id=turn.generation_id)
    assert len(parts_waiting()) == n_parts


def test_a_part_that_fails_fails_the_turn_by_name() -> None:
    turn = asked_for()
    read(parts_waiting()[0], "", status=Status.FAILED)
    generation = generation_of(turn)
    assert generation.status == Status.FAILED
    assert Message.objects.filter(conversation=turn.conversation_id).count() == 2


class TestPieces:
    def test_nothing_is_lost_and_nothing_is_too_long(self) -> None:
        for limit in (7, 40, 333):
            found = pieces(LONG, limit, len)
            assert all(0 < len(piece) <= limit for piece in found)
            assert "".join("".join(found).split()) == "".join(LONG.split())

    def test_the_best_border_within_reach_is_taken(self) -> None:
        assert pieces("One two.\n\nThree four five", 16, len) == ["One two.", "Three four five"]
        assert pieces("One two three. Four five", 20, len) == ["One two three.", "Four five"]
        assert pieces("abcdefghij", 4, len) == ["abcd", "efgh", "ij"]

    def test_a_beginning_is_marked_as_cut(self) -> None:
        assert beginning("short", 10, len) == "short"
        assert beginning("One two three four", 12, len) == "One two …"
        assert beginning("whatever", 1, len) == ""
