"""Titles by the model: when one is begun, what is taken for a title, and what happens meanwhile."""

from collections.abc import Callable

import pytest
from pytest_django import Settings

from chat.models import Conversation
from chat.services import conversations
from chat.services.turns import Turn
from chat.summarization import rolling, titles
from chat.summarization.titles import checked_title
from inference.config.tokenizer import Tokenizer
from inference.models import Generation, Priority, Status
from inference.queue.reaper import Reaper
from inference.queue.repeated_notifications import FOLLOW_UP_SECS
from tests.chat.conversing import ANN, chat, finish, generation_of, more
from tests.chat.folding import conversation_of
from tests.chat.vocabularies import fake_tokenizer, shown


@pytest.fixture(autouse=True)
def _tokenizer(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=4096))


def begun(text: str = "How do bees find their way?") -> Turn:
    """A first exchange on the page, and the task at its end."""
    turn = chat(f"u:{text}", auto_title=True)
    finish(turn, "They look at the sun.")
    rolling.after_answer(turn.generation_id)
    return turn


def making() -> Generation:
    return Generation.objects.get(follow_up_task=titles.AFTER_TITLE_TASK)


def made(text: str, **columns: object) -> None:
    """End the generation of the title with this text, and do its task."""
    generation = making()
    finish(Turn(generation_id=generation.pk), text, **columns)  # type: ignore[arg-type]
    titles.after_title(generation.pk)


def title_of(turn: Turn) -> tuple[str, str]:
    row = conversation_of(turn)
    return row.title, row.title_source


WORDS = ("How do bees find their way?", "words")


@pytest.mark.django_db
@pytest.mark.databases
class TestMaking:
    def test_the_title_replaces_the_first_words(self) -> None:
        turn = begun()
        assert title_of(turn) == (WORDS[0], "awaited")
        generation, before = making(), conversation_of(turn).updated_at
        assert (generation.priority, generation.owner, generation.ephemeral) == (Priority.BATCH, ANN.key, True)
        prompt = shown(generation.prompt_ids)
        assert "> User: How do bees find their way?" in prompt
        assert "> Assistant: They look at the sun." in prompt
        made('Title: "Bees and the sun."\n')
        assert title_of(turn) == ("Bees and the sun", "model")
        assert conversation_of(turn).updated_at == before
        assert [row.pk for row in conversations.conversations_of(ANN).search("bees AND")] == [turn.conversation_id]
        assert not Generation.objects.filter(pk=generation.pk).exists()

    def test_others_keep_their_first_words(self, settings: Settings) -> None:
        turn = chat("u:How do bees find their way?")
        assert generation_of(turn).follow_up_task == ""
        assert title_of(turn) == WORDS
        settings.AUTO_TITLES = False
        assert title_of(chat("u:How do bees find their way?", auto_title=True)) == WORDS

    def test_a_base_model_makes_none(self, use_tokenizer: Callable[[Tokenizer], None]) -> None:
        use_tokenizer(fake_tokenizer(context_size=4096, is_base=True))
        turn = begun()
        assert title_of(turn) == WORDS
        assert not Generation.objects.filter(follow_up_task=titles.AFTER_TITLE_TASK).exists()

    def test_a_later_turn_asks_for_nothing(self) -> None:
        turn = chat("u:one")
        finish(turn, "Fine.")
        assert title_of(more(turn, "two", auto_title=True)) == ("one", "words")

    @pytest.mark.parametrize("when", ["before", "meanwhile"])
    def test_a_title_that_a_person_set_stays(self, when: str) -> None:
        turn = chat("u:How do bees find their way?", auto_title=True) if when == "before" else begun()
        conversations.update_conversation(caller=ANN, conversation_id=conversation_of(turn).pk, title="Mine")
        if when == "before":
            finish(turn, "They look at the sun.")
            rolling.after_answer(turn.generation_id)
            assert not Generation.objects.filter(follow_up_task=titles.AFTER_TITLE_TASK).exists()
        else:
            made("Bees and the sun")
        assert title_of(turn) == ("Mine", "user")
        finish(more(turn, "And wasps?")) if when == "meanwhile" else None
        assert title_of(turn) == ("Mine", "user")

    @pytest.mark.parametrize(
        ("text", "columns"),
        [("", {}), ("Bees", {"status": Status.FAILED}), ("Bees and the", {"finish_reason": "length"})],
    )
    def test_the_words_stay_where_no_title_was_made(self, text: str, columns: dict[str, object]) -> None:
        turn = begun()
        made(text, **columns)
        assert title_of(turn) == WORDS

    def test_an_answer_without_text_leaves_it_to_the_next(self) -> None:
        turn = chat("u:one", auto_title=True)
        finish(turn, "", status=Status.FAILED)
        rolling.after_answer(turn.generation_id)
        assert not Generation.objects.filter(follow_up_task=titles.AFTER_TITLE_TASK).exists()
        assert title_of(turn) == ("one", "awaited")

    def test_two_answers_begin_one_title(self) -> None:
        turn = begun()
        second = more(turn, "And wasps?")
        finish(second, "The same.")
        assert generation_of(second).follow_up_task == rolling.AFTER_ANSWER_TASK
        rolling.after_answer(second.generation_id)
        rolling.after_answer(second.generation_id)
        made("Bees and the sun")
        assert title_of(turn) == ("Bees and the sun", "model")

    def test_a_conversation_that_is_deleted_meanwhile(self) -> None:
        turn = begun()
        generation = making()
        conversations.delete_conversation(caller=ANN, conversation_id=conversation_of(turn).pk)
        assert not Generation.objects.filter(pk=generation.pk).exists()
        titles.after_title(generation.pk)
        assert not Conversation.objects.exists()

    def test_a_lost_wake_up_message_is_sent_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[tuple[object, str]] = []
        monkeypatch.setattr("inference.queue.repeated_notifications.notify", lambda pk, task: sent.append((pk, task)))
        begun()
        generation = making()
        finish(Turn(generation_id=generation.pk), "Bees and the sun")
        now = [1000.0]
        reaper = Reaper(lambda: 0, clock=lambda: now[0])
        reaper.run_once()
        now[0] += FOLLOW_UP_SECS
        reaper.run_once()
        assert (generation.pk, titles.AFTER_TITLE_TASK) in sent

    def test_a_new_turn_takes_a_conversation_out_of_the_archive(self) -> None:
        turn = chat("u:one")
        finish(turn)
        conversations.update_conversation(caller=ANN, conversation_id=conversation_of(turn).pk, archived=True)
        more(turn, "two")
        assert not conversation_of(turn).archived


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Bees and the sun", "Bees and the sun"),
        ("  **Titel:** „Bienen und die Sonne“\nUnd mehr.", "Bienen und die Sonne"),
        ("## 1. Bees", "1. Bees"),
        ("O'Brien's \"second\" visit", "O'Brien's \"second\" visit"),
        ("Who's there?", "Who's there?"),
        ("الطقس في باريس", "الطقس في باريس"),
        ("\u202eevil\u202c \x1b[31mred", "evil [31mred"),
        ("میخواهم\u200cبروم", "میخواهم\u200cبروم"),
        ("", ""),
        ('"..."', ""),
        ("```python", ""),
        ("<|im_start|>user", ""),
        ("bees bees bees bees bees bees", ""),
        ("the sun the sun the sun the sun", ""),
        ("x" * 101, ""),
        (" ".join(f"word{n}" for n in range(15)), ""),
    ],
)
def test_what_is_taken_for_a_title(text: str, title: str) -> None:
    assert checked_title(text) == title
