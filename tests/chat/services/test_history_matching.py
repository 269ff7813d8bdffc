"""A client that sends its whole history continues its conversation, however its texts come back and however many
conversations begin alike."""

import importlib
import unicodedata
from collections.abc import Callable

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.models import Conversation, Message
from chat.services.turns import Turn
from tests.chat.conversing import BOB, chat, finish, more, texts_of

pytestmark = pytest.mark.django_db
ALIKE = 30
RENDERINGS: dict[str, Callable[[str], str]] = {
    "trimmed": lambda text: text.strip(),
    "trailing blank": lambda text: text + " \n",
    "leading tab": lambda text: "\t" + text,
    "no-break space": lambda text: text + "\u00a0",
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "cr": lambda text: text.replace("\n", "\r"),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "decomposed crlf": lambda text: unicodedata.normalize("NFD", text).replace("\n", "\r\n"),
}


def answered(text: str, answer: str, system: str = "") -> Turn:
    turn = chat(*([f"s:{system}"] if system else []), f"u:{text}")
    finish(turn, answer)
    return turn


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("part", ["question", "answer", "system"])
def test_a_text_sent_again_in_another_form_is_the_same(rendering: str, part: str) -> None:
    texts = {"system": "Sei höflich.\nSei kurz.", "question": "Grüße\nund ein Café? ", "answer": "Hören\nSie!"}
    first = answered(texts["question"], texts["answer"], texts["system"])
    sent = texts | {part: RENDERINGS[rendering](texts[part])}
    second = chat(f"s:{sent['system']}", f"u:{sent['question']}", f"a:{sent['answer']}", "u:and now?")
    assert second.conversation_id == first.conversation_id


@pytest.mark.parametrize("other", ["two  words", "two\nwords", "Two words", "two words.", "twowords"])
def test_another_text_is_another_conversation(other: str) -> None:
    first = answered("two words", "Fine.")
    assert chat(f"u:{other}", "a:Fine.", "u:and now?").conversation_id != first.conversation_id


def test_a_system_message_of_white_space_is_none() -> None:
    first = answered("one", "first")
    assert chat("s: \n", "u:one", "a:first", "u:two").conversation_id == first.conversation_id


def test_each_of_many_that_begin_alike_is_found_at_every_turn() -> None:
    started = [answered("Hello", f"answer {number}") for number in range(ALIKE)]
    for number, first in enumerate(started):
        second = chat("u:Hello", f"a:answer {number}", "u:go on")
        assert second.conversation_id == first.conversation_id
        finish(second, "more")
    for number, first in enumerate(started):
        third = chat("u:Hello", f"a:answer {number}", "u:go on", "a:more", "u:and on")
        assert third.conversation_id == first.conversation_id


def test_an_edit_forks_the_oldest_of_many_that_begin_alike() -> None:
    for number in range(ALIKE):
        finish(more(answered("Hello", f"answer {number}"), "go on"), "more")
    fork = chat("u:Hello", "a:answer 0", "u:something else")
    assert Conversation.objects.count() == ALIKE + 1
    copied = Message.objects.filter(conversation_id=str(fork.conversation_id)).in_order()[1]
    assert copied.rendered, "the fork has no copy of the tokens"


def test_of_many_that_are_equal_the_newest_continues() -> None:
    newest = [answered("Hello", "Hi.") for _ in range(ALIKE)][-1]
    assert chat("u:Hello", "a:Hi.", "u:go on").conversation_id == newest.conversation_id


def test_many_that_begin_alike_cost_no_query_each() -> None:
    for number in range(ALIKE):
        answered("Hello", f"answer {number}")
    with CaptureQueriesContext(connection) as queries:
        chat("u:Hello", "a:answer 3", "u:go on")
    assert len(queries) < ALIKE


def test_another_owner_has_conversations_of_its_own() -> None:
    first = answered("Hello", "Hi.")
    assert chat("u:Hello", "a:Hi.", "u:go on", caller=BOB).conversation_id != first.conversation_id


def test_a_longer_conversation_is_forked_not_continued() -> None:
    first = answered("Hello", "Hi.")
    finish(more(first, "go on"), "more")
    again = chat("u:Hello", "a:Hi.", "u:something else")
    assert again.conversation_id != first.conversation_id
    assert [text for _, text in texts_of(again.conversation_id)] == ["Hello", "Hi.", "something else", ""]


def test_stored_digests_are_migrated() -> None:
    """Rows of earlier versions have digests of the texts as they were sent."""
    first = answered(" Hello\r\nthere ", "Hi.", "Sei nett.\r\n")
    second = more(first, "Caf\u0065\u0301 ")
    finish(second, "Yes.")
    digests = list(Message.objects.order_by("position").values_list("history_digest", flat=True))
    Message.objects.update(history_digest="0" * 64)
    migration = importlib.import_module("chat.migrations.0008_folded_texts")
    migration.derive(apps, None)
    assert [row for row in digests if row] == list(
        Message.objects.filter(role="user").order_by("position").values_list("history_digest", flat=True)
    )
    third = chat("s:Sei nett.", "u:Hello\nthere", "a:Hi.", "u:Caf\u00e9", "a:Yes.", "u:and?")
    assert third.conversation_id == first.conversation_id


class TestConversationsThatBeginAlike:
    """Kind: look-ups bounded by recency, or that read the text of every conversation that begins alike."""

    N_ALIKE = 60

    @pytest.mark.parametrize("number", [0, 31, N_ALIKE - 1])
    def test_each_is_found_by_its_answer_alone(self, number: int) -> None:
        first = [answered("Hello", f"Hi number {each}.") for each in range(self.N_ALIKE)]
        with CaptureQueriesContext(connection) as captured:
            again = chat("u:Hello", f"a:Hi number {number}.", "u:go on")
        assert again.conversation_id == first[number].conversation_id
        assert len(captured) <= 40, "the queries do not depend on how many begin alike"

    def test_equal_last_answers_after_different_earlier_ones(self) -> None:
        turns = []
        for number in range(12):
            first = answered("Hello", f"Hi number {number}.")
            turns.append(more(first, "thanks"))
            finish(turns[-1], "You are welcome!")
        again = chat("u:Hello", "a:Hi number 0.", "u:thanks", "a:You are welcome!", "u:bye")
        assert again.conversation_id == turns[0].conversation_id

    def test_an_edited_answer_begins_a_fork_with_what_is_shared(self) -> None:
        for number in range(8):
            finish(more(answered("Hello", f"Hi number {number}."), "and?"), "more")
        again = chat("u:Hello", "a:Hi number 3.", "u:and?", "a:edited by the client", "u:go on")
        assert [text for _, text in texts_of(again.conversation_id)] == [
            "Hello", "Hi number 3.", "and?", "edited by the client", "go on", "",
        ]  # fmt: skip

    def test_an_answer_that_was_stopped_before_its_first_word_counts_as_none(self) -> None:
        first = answered("Hello", "")
        answered("Hello", "Hi.")
        again = chat("u:Hello", "a:", "u:go on")
        assert again.conversation_id == first.conversation_id
