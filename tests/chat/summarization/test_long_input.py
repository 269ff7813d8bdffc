"""A message longer than the context: read in parts on request, 413 otherwise."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from chat.enums import Strategy
from chat.errors import ContextOverflow
from chat.models import Conversation, Message
from chat.prompting.text_splitter import beginning, pieces
from chat.services import conversations, turns
from chat.services.turns import Turn
from chat.summarization.long_input import AFTER_PART_TASK
from chat.summarization.summarizer import Summarizer
from inference.config.tokenizer import Tokenizer
from inference.enums import UNFINISHED
from inference.models import Generation, Priority, Status
from inference.queue.reaper import RowReaper
from inference.runtime.redis_client import log_key, shared_client
from inference.token_stream import redis_log
from tests.chat.conversing import ANN, chat, finish, generation_of, more, prompt_of, texts_of
from tests.chat.folding import CONTEXT, follow, pieces_left, read_all, talk
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

LONG = "\n\n".join(f"Paragraph {number} says something. " + "It goes on. " * 20 for number in range(60))


@pytest.fixture(autouse=True)
def _small_context(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=CONTEXT))


@pytest.fixture
def large_context(use_tokenizer: Callable[[Tokenizer], None]) -> int:
    """A context of which two parts take half."""
    use_tokenizer(fake_tokenizer(context_size=4 * CONTEXT))
    return 4 * CONTEXT


def asked_for(text: str = LONG) -> Turn:
    turn = chat(f"u:{text}", strategy=Strategy.SUMMARIZE, max_tokens=60)
    assert turn.needs_preparation
    turns.prepare_turn(generation_id=turn.generation_id)
    return turn


def parts_waiting() -> list[Generation]:
    return list(Generation.objects.filter(follow_up_task=AFTER_PART_TASK, status=Status.QUEUED).order_by("created_at"))


def read(part: Generation, text: str, *, status: Status = Status.COMPLETE) -> None:
    finish(Turn(generation_id=part.pk), text, status=status)
    turns.continue_long_input(generation_id=part.pk)


def read_parts(text_of: Callable[[int], str]) -> list[str]:
    """Read all parts of a level in their order; returns their prompts."""
    prompts: list[str] = []
    level = parts_waiting()[0].idempotency_key.split(":")[2]  # type: ignore[union-attr]
    while (parts := parts_waiting()) and parts[0].idempotency_key.split(":")[2] == level:  # type: ignore[union-attr]
        prompts.append(shown(parts[0].prompt_ids))
        read(parts[0], text_of(len(prompts) - 1))
    return prompts


@pytest.mark.parametrize("strategy", [None, Strategy.TRUNCATE, Strategy.ERROR])
def test_without_being_asked_for_it_is_refused_and_nothing_is_stored(strategy: Strategy | None) -> None:
    with pytest.raises(ContextOverflow) as caught:
        chat(f"u:{LONG}", strategy=strategy)
    assert caught.value.extra["prompt_tokens"] > len(LONG)
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("place", ["end", "beginning"])
def test_a_question_about_a_detail_is_answered_from_the_parts_that_have_its_words(place: str) -> None:
    question = "Which number opens the safe in the cellar?"
    middle = len(LONG) // 2
    text = f"{LONG[:middle]}\n\nThe safe in the cellar opens with number 4711.\n\n{LONG[middle:]}"
    turn = asked_for(f"{text}\n\n{question}" if place == "end" else f"{question}\n\n{text}")
    assert not parts_waiting()
    prompt = shown(prompt_of(turn))
    assert "The safe in the cellar opens with number 4711." in prompt
    assert question in prompt
    assert len(prompt_of(turn)) <= CONTEXT - 60


@pytest.mark.parametrize(
    "question",
    ["Can you summarize the story of the safe?", "Kannst du alles über den Safe zusammenfassen?", "Why?", "Thanks!"],
)
def test_a_question_about_all_of_it_and_one_without_words_in_it_are_read_in_parts(question: str) -> None:
    asked_for(f"{LONG}\n\nThe safe opens with 4711.\n\n{LONG}\n\n{question}")
    assert parts_waiting()


def test_it_is_read_part_by_part_and_answered_from_the_notes() -> None:
    turn = asked_for()
    assert all(part.priority == Priority.INTERACTIVE and part.ephemeral for part in parts_waiting())
    assert generation_of(turn).status == Status.PREPARING
    prompts = read_parts(lambda number: f"notes {number}")
    assert len(prompts) >= 4
    for number in range(60):
        assert sum(f"Paragraph {number} says" in prompt for prompt in prompts) == 1
    prompt = shown(prompt_of(turn))
    assert prompt.index("Paragraph 0 says") < prompt.index("> notes 0") < prompt.index(f"> notes {len(prompts) - 1}")
    assert prompt.count("It goes on.") > 10, "the end of the message stands there word for word"
    assert texts_of(turn.conversation_id)[0] == ("user", LONG), "what was sent stays as it was"
    finish(turn, "Answered.")
    following = more(turn, "And now?", max_tokens=60)
    assert shown(prompt_of(following)).count("> notes 0") == 1


def test_a_conversation_whose_first_message_overflows_goes_on_and_is_folded() -> None:
    turn = asked_for()
    read_parts(lambda number: f"notes {number}")
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
    n_parts = len(read_parts(lambda number: "notes"))
    stream = shared_client().xrange(log_key(turn.generation_id))
    statuses = [redis_log.decode(fields[redis_log.FIELD]) for _, fields in stream]
    assert [(entry.state, entry.progress) for entry in statuses] == [  # type: ignore[union-attr]
        ("summarizing", round(number / n_parts, 3)) for number in range(n_parts)
    ]


def test_notes_that_are_too_long_are_read_again() -> None:
    turn = asked_for()
    read_parts(lambda number: "long notes. " * 60)
    second = parts_waiting()
    assert second, "a level of its own"
    assert "> long notes." in shown(second[0].prompt_ids)
    read_parts(lambda number: "short")
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


class TestPartsOfOneTurn:
    @pytest.mark.parametrize(("parallel", "n_at_once"), [(1, 1), (2, 1), (4, 2), (6, 2)])
    def test_they_leave_half_of_places_and_cells_to_other_questions(
        self, settings: Settings, large_context: int, parallel: int, n_at_once: int
    ) -> None:
        settings.GEMMA_PARALLEL = parallel
        asked_for(LONG * 4)
        for _ in range(2):
            parts = parts_waiting()
            assert len(parts) == n_at_once
            assert sum(len(part.prompt_ids) + part.params["max_tokens"] for part in parts) <= large_context // 2
            read(parts[0], "notes")

    @pytest.mark.parametrize("context_size", [CONTEXT, 2 * CONTEXT, 8 * CONTEXT])
    def test_a_part_is_never_larger_than_the_half_that_parts_may_take(
        self, use_tokenizer: Callable[[Tokenizer], None], context_size: int
    ) -> None:
        use_tokenizer(fake_tokenizer(context_size=context_size))
        asked_for(LONG * (context_size // CONTEXT))
        sizes = [len(part.prompt_ids) + part.params["max_tokens"] for part in parts_waiting()]
        assert 0 < sum(sizes) <= max(context_size // 2, 4_000), "4,000: the summarizer's own prompt, in characters"

    def test_the_next_question_of_the_caller_goes_before_the_parts_to_come(self) -> None:
        asked_for()
        following = chat("u:short")
        first, *_ = parts_waiting()
        read(first, "notes")
        order = list(Generation.objects.queued().order_by("queued_at").values_list("pk", flat=True))
        assert order.index(following.generation_id) < order.index(parts_waiting()[-1].pk)

    def test_the_text_is_split_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts: list[str] = []
        split = Summarizer.parts

        def counted(self: Summarizer, text: str) -> list[tuple[int, int]]:
            texts.append(text)
            return split(self, text)

        monkeypatch.setattr(Summarizer, "parts", counted)
        turn = asked_for()
        read_parts(lambda number: f"notes {number}")
        assert generation_of(turn).status == Status.QUEUED
        assert texts == [LONG]


def cancel(turn: Turn) -> None:
    turns.cancel(caller=ANN, generation_id=turn.generation_id)


def end_by_the_reaper(turn: Turn) -> None:
    Generation.objects.filter(pk=turn.generation_id).update(deadline_at=timezone.now() - timedelta(seconds=1))
    RowReaper().run_once()


def delete(turn: Turn) -> None:
    assert turn.conversation_id
    conversations.delete_conversation(caller=ANN, conversation_id=turn.conversation_id)


def fail_a_part(turn: Turn) -> None:
    read(parts_waiting()[0], "", status=Status.FAILED)
    RowReaper().run_once()


def delete_the_row_alone(turn: Turn) -> None:
    Generation.objects.filter(pk=turn.generation_id).delete()
    RowReaper().run_once()


@pytest.mark.parametrize("end", [cancel, end_by_the_reaper, delete, fail_a_part, delete_the_row_alone])
@pytest.mark.parametrize("is_running", [False, True])
def test_a_part_ends_with_its_turn_whatever_ended_it(
    large_context: int, end: Callable[[Turn], None], is_running: bool
) -> None:
    turn = asked_for(LONG * 4)
    parts = parts_waiting()
    if is_running:
        assert Generation.objects.claim_next(worker="w") is not None
        assert Generation.objects.claim_next(worker="w") is not None
    if is_running and end is fail_a_part:
        finish(Turn(generation_id=parts[0].pk), "", status=Status.FAILED)
        turns.continue_long_input(generation_id=parts[0].pk)
        RowReaper().run_once()
    else:
        end(turn)
    left = Generation.objects.filter(pk__in=[part.pk for part in parts], status__in=UNFINISHED)
    assert all(part.status == Status.RUNNING and part.cancel_requested for part in left)
    assert not left.filter(status=Status.QUEUED).exists()


def test_parts_of_a_turn_that_waits_for_them_stay() -> None:
    asked_for()
    before = parts_waiting()
    RowReaper().run_once()
    assert [part.pk for part in parts_waiting()] == [part.pk for part in before]


def test_no_part_is_stored_for_a_turn_that_was_deleted_while_its_text_was_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = chat(f"u:{LONG}", strategy=Strategy.SUMMARIZE, max_tokens=60)
    split = Summarizer.parts

    def deleted_meanwhile(self: Summarizer, text: str) -> list[tuple[int, int]]:
        delete(turn)
        return split(self, text)

    monkeypatch.setattr(Summarizer, "parts", deleted_meanwhile)
    turns.prepare_turn(generation_id=turn.generation_id)
    assert not Generation.objects.exists()


class TestPieces:
    def test_nothing_is_lost_and_nothing_is_too_long(self) -> None:
        for limit in (7, 40, 333):
            parts = pieces(LONG, limit, len)
            assert all(0 < len(piece) <= limit for piece in parts)
            assert "".join("".join(parts).split()) == "".join(LONG.split())

    def test_the_best_border_within_reach_is_taken(self) -> None:
        assert pieces("One two.\n\nThree four five", 16, len) == ["One two.", "Three four five"]
        assert pieces("One two three. Four five", 20, len) == ["One two three.", "Four five"]
        assert pieces("abcdefghij", 4, len) == ["abcd", "efgh", "ij"]

    def test_a_beginning_is_marked_as_cut(self) -> None:
        assert beginning("short", 10, len) == "short"
        assert beginning("One two three four", 12, len) == "One two …"
        assert beginning("whatever", 1, len) == ""
