"""A client that sends its whole history continues its conversation, however its texts come back and however many
conversations begin alike."""

import importlib
import time
import unicodedata
import uuid
from collections.abc import Callable

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.models import Conversation, Message, Role
from chat.prompting.message_groups import DialogueMessage
from chat.services import conversations
from chat.services.history_matching import cumulative_digests, match_history
from chat.services.turns import Turn
from inference.models import Generation, Status
from tests.chat.conversing import ANN, BOB, chat, finish, more, texts_of

pytestmark = [pytest.mark.django_db, pytest.mark.databases]
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


class TestRowsOfEarlierVersions:
    """Their digests are of the texts as they were sent, cover no owner, and stand at questions alone."""

    @staticmethod
    def migrate() -> None:
        Message.objects.update(history_digest="0" * 64)
        Generation.objects.update(dialogue_digest="", dialogue_continued=False)
        importlib.import_module("chat.migrations.0010_dialogue_digests").derive(apps, None)

    @staticmethod
    def stored() -> list[tuple[object, ...]]:
        columns = ("history_digest", "generation__dialogue_digest", "generation__dialogue_continued")
        return list(Message.objects.order_by("conversation", "position").values_list(*columns))

    def test_generated_answers(self) -> None:
        first = answered(" Hello\r\nthere ", "Hi.", "Sei nett.\r\n")
        second = more(first, "Caf\u0065\u0301 ")
        finish(second, "Yes.")
        before = self.stored()
        self.migrate()
        assert self.stored() == before
        third = chat("s:Sei nett.", "u:Hello\nthere", "a:Hi.", "u:Caf\u00e9", "a:Yes.", "u:and?")
        assert third.conversation_id == first.conversation_id

    def test_sent_answers_greetings_blank_answers_and_forks(self) -> None:
        first = chat("a:Welcome!", "u:one", "a:", "u:two", "a:second", "a:and more", "u:three")
        finish(first, "")
        second = more(first, "four")
        finish(second, "fourth")
        fork = chat(conversation_id=first.conversation_id, replaces=second.message_id, message="other")
        finish(fork, "other answer")
        before = self.stored()
        self.migrate()
        assert self.stored() == before
        history = ["a:Welcome!", "u:one", "u:two", "a:second", "a:and more", "u:three", "u:other", "a:other answer"]
        assert chat(*history, "u:more").conversation_id == fork.conversation_id

    def test_an_unfinished_answer_is_found_once_it_ended(self) -> None:
        first = chat("u:Hello")
        self.migrate()
        finish(first, "Hi.")
        assert chat("u:Hello", "a:Hi.", "u:go on").conversation_id == first.conversation_id


@pytest.mark.parametrize("system", ["", "Sei nett."])
def test_another_system_prompt_is_found_from_then_on(system: str) -> None:
    first = chat("s:before", "u:Hello", "a:Hi.", "u:one")
    finish(first, "first")
    assert first.conversation_id
    conversations.update_conversation(caller=ANN, conversation_id=first.conversation_id, system_prompt=system)
    history = ["u:Hello", "a:Hi.", "u:one", "a:first", "u:two"]
    assert chat("s:before", *history).conversation_id != first.conversation_id
    assert chat(*([f"s:{system}"] if system else []), *history).conversation_id == first.conversation_id


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


SHAPES = ["other answers", "equal", "continued", "of another owner"]


def _fill(shape: str, n_conversations: int) -> None:
    """Store conversations that begin with "Hello", in the given ``shape``."""
    owner = BOB.key if shape == "of another owner" else ANN.key
    [digest] = cumulative_digests(owner, "", [(Role.USER, "Hello")])
    answers = [
        Generation(
            owner=owner,
            status=Status.COMPLETE,
            text=f"Hi number {number}." if shape == "other answers" else "Hi.",
            dialogue_digest=digest,
            dialogue_continued=shape == "continued",
        )
        for number in range(n_conversations)
    ]
    Generation.objects.bulk_create(answers, batch_size=200)
    rows = [Conversation(owner=owner) for _ in answers]
    Conversation.objects.bulk_create(rows, batch_size=200)
    texts = []
    for row, answer in zip(rows, answers, strict=True):
        texts.append(Message(conversation=row, position=0, role=Role.USER, content="Hello", history_digest=digest))
        texts.append(Message(conversation=row, position=1, role=Role.ASSISTANT, generation=answer))
        if shape == "continued":
            other = uuid.uuid4().hex
            texts.append(Message(conversation=row, position=2, role=Role.USER, content=other, history_digest=other))
    Message.objects.bulk_create(texts, batch_size=200)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_time_does_not_grow_with_the_conversations_that_begin_alike(shape: str) -> None:
    beginning = [DialogueMessage(Role.USER, "Hello"), DialogueMessage(Role.ASSISTANT, "Hi.")]
    histories = [
        beginning,
        [*beginning, DialogueMessage(Role.USER, "edited"), DialogueMessage(Role.ASSISTANT, "edited")],
        [DialogueMessage(Role.USER, "Hello"), DialogueMessage(Role.ASSISTANT, "no such answer")],
    ]

    def cpu_secs() -> float:
        begin = time.process_time()
        for history in histories:
            match_history(owner=ANN.key, system="", history=history)
        return time.process_time() - begin

    _fill(shape, 10)
    few = min(cpu_secs() for _ in range(5))
    _fill(shape, 3_000)
    assert min(cpu_secs() for _ in range(5)) < 4 * few
