"""Starting a turn: its conversation, and its stored rows."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from chat.errors import (
    ConversationBusy,
    NotFound,
)
from chat.models import Conversation, Message, Retrieval
from chat.rag.sources import ContextItem
from chat.services import turn_store
from chat.services import turns as services
from chat.services.conversations import update_conversation
from chat.services.turn_plan import TurnPlan
from chat.services.turns import Turn
from inference.config.tokenizer import Tokenizer
from inference.models import Generation, Status
from tests.chat.conftest import SYSTEM
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, more, prompt_of, texts_of
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


def conversation_of(turn: Turn) -> Conversation:
    return generation_of(turn).message.conversation


def nothing_stored() -> bool:
    return not (Conversation.objects.exists() or Message.objects.exists() or Generation.objects.exists())


def test_a_first_turn_makes_a_conversation_with_both_messages() -> None:
    turn = chat("u:Hello  there")
    conversation = conversation_of(turn)
    assert (conversation.owner, conversation.title, conversation.system_prompt) == (ANN.key, "Hello there", "")
    assert texts_of(turn.conversation_id) == [("user", "Hello  there"), ("assistant", "")]
    generation = generation_of(turn)
    assert generation.message.pk == turn.message_id
    assert (generation.status, generation.owner, generation.ephemeral) == (Status.QUEUED, ANN.key, False)
    assert not turn.needs_preparation
    assert shown(prompt_of(turn)) == (
        f"⟨bos⟩⟨start_of_turn⟩user\n{SYSTEM}\n\nHello  there⟨end_of_turn⟩\n⟨start_of_turn⟩model\n"
    )


def test_what_the_engine_is_told() -> None:
    turn = chat("u:hello", seed=7, temperature=0.0, stop=("END",), max_tokens=9, logit_bias={5: None}, timeout_s=30)
    generation = generation_of(turn)
    assert generation.params["sampling"] | {"seed": 7, "temperature": 0.0} == generation.params["sampling"]
    assert generation.params["stop"] == ["END"]
    assert generation.params["max_tokens"] == 9
    assert generation.timeout_secs == 30


def test_a_seed_is_drawn_when_none_is_given() -> None:
    seeds = {generation_of(chat("u:hello")).params["sampling"]["seed"] for _ in range(4)}
    assert len(seeds) == 4


def test_a_timeout_is_at_most_the_installations(settings: Settings) -> None:
    settings.REQUEST_TIMEOUT_SECS = 100.0
    assert generation_of(chat("u:hello", timeout_s=5000)).timeout_secs == 100
    assert generation_of(chat("u:hello")).timeout_secs == 100


def test_a_transcript_brings_its_own_stops(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(is_base=True))
    params = generation_of(chat("u:hello", stop=("END",))).params
    assert params["trim_start"] is True
    assert {"END", "\nUser:"} <= set(params["stop"])


def test_who_ignores_the_end_token_ignores_the_formats_stops(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(is_base=True))
    params = generation_of(chat("u:hello", stop=("END",), ignore_eos=True)).params
    assert params["stop"] == ["END"]


# ---- which conversation ----


def test_a_known_conversation_goes_on() -> None:
    first = chat("u:one")
    finish(first, "first")
    second = more(first, "two")
    assert second.conversation_id == first.conversation_id
    assert texts_of(first.conversation_id) == [
        ("user", "one"),
        ("assistant", "first"),
        ("user", "two"),
        ("assistant", ""),
    ]
    assert Conversation.objects.get().title == "one"


def test_a_history_sent_again_continues_its_conversation() -> None:
    first = chat("u:one")
    finish(first, " first\n")
    second = chat("u:one", "a:first", "u:two")
    finish(second, "second")
    third = chat("u:one", "a:first", "u:two", "a: second ", "u:three")
    assert {first.conversation_id, second.conversation_id, third.conversation_id} == {first.conversation_id}
    assert [role for role, _ in texts_of(third.conversation_id)] == ["user", "assistant"] * 3


@pytest.mark.parametrize(
    "sent",
    [
        ("u:one", "a:not what was said", "u:two"),
        ("u:One", "a:first", "u:two"),
        ("u:one", "u:two"),
        ("s:be brief", "u:one", "a:first", "u:two"),
        ("u:one", "a:first", "u:one", "a:first", "u:two"),
        ("a:first", "u:one", "u:two"),
    ],
)
def test_another_history_begins_a_new_conversation_that_keeps_it(sent: tuple[str, ...]) -> None:
    first = chat("u:one")
    finish(first, "first")
    turn = chat(*sent)
    assert turn.conversation_id != first.conversation_id
    roles = {"u": "user", "a": "assistant"}
    dialogue = [(roles[text[0]], text[2:]) for text in sent if text[0] != "s"]
    assert texts_of(turn.conversation_id) == [*dialogue, ("assistant", "")]


def test_a_history_that_went_on_since_begins_a_new_conversation() -> None:
    """Sending an old state again (an edited message, a retry) must not append to later messages."""
    first = chat("u:one")
    finish(first, "first")
    finish(more(first, "two"), "second")
    assert chat("u:one", "a:first", "u:other").conversation_id != first.conversation_id


def test_a_history_of_somebody_else_begins_a_new_conversation() -> None:
    first = chat("u:one")
    finish(first, "first")
    second = chat("u:one", "a:first", "u:two", caller=BOB)
    assert second.conversation_id != first.conversation_id
    assert texts_of(second.conversation_id)[:2] == [("user", "one"), ("assistant", "first")]


def test_an_unfinished_history_is_not_continued() -> None:
    first = chat("u:one")
    finish(first, "first", status=Status.RUNNING)
    assert chat("u:one", "a:first", "u:two").conversation_id != first.conversation_id


def test_a_failed_answer_does_not_break_the_history() -> None:
    first = chat("u:one")
    finish(first, "", status=Status.FAILED, finish_reason="", error_code="runner_crashed")
    second = chat("u:one", "u:two")
    assert second.conversation_id == first.conversation_id
    text = shown(prompt_of(second))
    assert text.count("⟨start_of_turn⟩model") == 1
    assert "one\n\ntwo⟨end_of_turn⟩" in text


def test_with_a_system_message_the_same_one_continues() -> None:
    first = chat("s:be brief", "u:one")
    finish(first, "first")
    assert Conversation.objects.get().system_prompt == "be brief"
    assert "be brief\n\none" in shown(generations_prompt := prompt_of(chat("s:be brief", "u:one", "a:first", "u:two")))
    assert SYSTEM not in shown(generations_prompt)
    assert Conversation.objects.count() == 1


def test_a_changed_system_prompt_is_found_again_by_its_history() -> None:
    first = chat("u:one")
    finish(first, "first")
    assert first.conversation_id
    update_conversation(caller=ANN, conversation_id=first.conversation_id, system_prompt="be brief")
    second = chat("s:be brief", "u:one", "a:first", "u:two")
    assert second.conversation_id == first.conversation_id
    assert shown(prompt_of(second)).count("be brief") == 1


def test_the_newest_of_several_equal_conversations_goes_on() -> None:
    turns_ = [chat("u:one") for _ in range(3)]
    for turn in turns_:
        finish(turn, "first")
    assert chat("u:one", "a:first", "u:two").conversation_id == turns_[-1].conversation_id


def test_unknown_and_foreign_conversations_are_not_found() -> None:
    first = chat("u:one")
    finish(first)
    for caller, conversation_id in ((BOB, first.conversation_id), (ANN, uuid.uuid4())):
        with pytest.raises(NotFound) as caught:
            chat(caller=caller, conversation_id=conversation_id, message="two")
        assert (caught.value.status, caught.value.field) == (404, "conversation_id")
    assert Message.objects.count() == 2


@pytest.mark.parametrize("status", [Status.PREPARING, Status.QUEUED, Status.RUNNING])
def test_a_conversation_takes_one_turn_at_a_time(status: Status) -> None:
    first = chat("u:one")
    Generation.objects.update(status=status)
    with pytest.raises(ConversationBusy) as caught:
        more(first, "two")
    assert (caught.value.status, caught.value.code) == (409, "conversation_busy")
    assert Message.objects.count() == 2


def test_a_conversation_that_moved_meanwhile_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chat("u:one")
    finish(first)
    store = turn_store.store_choices
    earlier: list[bool] = []

    def store_after_another_turn(plan: TurnPlan, **key: Any) -> list[Generation]:  # noqa: ANN401
        if not earlier:
            earlier.append(True)
            more(first, "theirs")
        return store(plan, **key)

    monkeypatch.setattr(services, "store_choices", store_after_another_turn)
    with pytest.raises(ConversationBusy):
        more(first, "mine")
    assert [text for _, text in texts_of(first.conversation_id)] == ["one", "Fine.", "theirs", ""]


def test_a_found_conversation_that_moved_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chat("u:one")
    finish(first, "first")
    store = turn_store.store_choices
    earlier: list[bool] = []

    def store_after_another_turn(plan: TurnPlan, **key: Any) -> list[Generation]:  # noqa: ANN401
        if not earlier:
            earlier.append(True)
            more(first, "theirs")
        return store(plan, **key)

    monkeypatch.setattr(services, "store_choices", store_after_another_turn)
    turn = chat("u:one", "a:first", "u:mine")
    assert turn.conversation_id != first.conversation_id
    assert [text for _, text in texts_of(turn.conversation_id)] == ["one", "first", "mine", ""]


def test_what_its_owner_changes_meanwhile_is_kept_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting and rendering take a while; a rename and a new system prompt come between reading and storing."""
    first = chat("u:one")
    finish(first)
    conversation_id = conversation_of(first).pk
    store, plans = turn_store.store_choices, list[TurnPlan]()

    def meanwhile(plan: TurnPlan, **key: Any) -> list[Generation]:  # noqa: ANN401
        if not plans:
            update_conversation(caller=ANN, conversation_id=conversation_id, title="Mine", system_prompt="Be brief.")
        plans.append(plan)
        return store(plan, **key)

    monkeypatch.setattr(services, "store_choices", meanwhile)
    turn = more(first, "two")
    assert conversation_of(turn).title == "Mine"
    assert "Be brief." in shown(prompt_of(turn))
    finish(turn, "done")
    again = chat("s:Be brief.", "u:one", "a:Fine.", "u:two", "a:done", "u:three")
    assert again.conversation_id == conversation_id


def test_a_found_conversation_that_was_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chat("u:one")
    finish(first, "first")
    store = turn_store.store_choices

    def somebody_deletes(plan: TurnPlan, **key: Any) -> list[Generation]:  # noqa: ANN401
        Conversation.objects.filter(pk=str(first.conversation_id)).delete()
        return store(plan, **key)

    monkeypatch.setattr(services, "store_choices", somebody_deletes)
    turn = chat("u:one", "a:first", "u:mine")
    assert [text for _, text in texts_of(turn.conversation_id)] == ["one", "first", "mine", ""]
    with pytest.raises(NotFound):
        more(first, "mine")


# ---- titles ----


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        (" Two\n\nlines\there ", "Two lines here"),
        ("x" * 300, "x" * 80 + " …"),
        ("word " * 40, ("word " * 16).strip() + " …"),
        ("<eos>\x1b[31m red", "<eos> [31m red"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert conversation_of(chat(f"u:{text}")).title == title


def test_an_empty_conversation_gets_its_title_with_the_first_message() -> None:
    empty = Conversation.objects.create(owner=ANN.key)
    named = Conversation.objects.create(owner=ANN.key, title="My own")
    chat(conversation_id=empty.pk, message="Hello there")
    chat(conversation_id=named.pk, message="Hello there")
    assert [Conversation.objects.get(pk=item.pk).title for item in (empty, named)] == ["Hello there", "My own"]


# ---- nothing kept ----


def test_nothing_is_kept_without_store() -> None:
    turn = chat("s:be brief", "u:one", "a:first", "u:two", store=False, context=(ContextItem("the document"),))
    assert (turn.conversation_id, turn.message_id) == (None, None)
    assert not Conversation.objects.exists()
    assert not Retrieval.objects.exists()
    generation = generation_of(turn)
    assert generation.ephemeral
    assert generation.details["sources"][0]["text"] == "the document"
    text = shown(generation.prompt_ids)
    assert "be brief\n\none⟨end_of_turn⟩\n⟨start_of_turn⟩model\nfirst⟨end_of_turn⟩" in text
    assert '[1] document:\n> the document\n"""\n\ntwo⟨end_of_turn⟩' in text


def test_a_stored_history_can_be_used_without_keeping_the_turn() -> None:
    first = chat("u:one")
    finish(first, "first")
    before = list(Message.objects.order_by("position").values())
    turn = more(first, "two", store=False)
    assert turn.conversation_id is None
    assert "first⟨end_of_turn⟩" in shown(prompt_of(turn))
    assert list(Message.objects.order_by("position").values()) == before
    assert more(first, "three").conversation_id == first.conversation_id
