"""Starting a turn: which conversation it belongs to, what is stored, what is refused before anything is."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections
from pytest_django import Settings

from chat import services, turns
from chat.conversations import update_conversation
from chat.errors import (
    ChatError,
    Conflict,
    ContextOverflow,
    ConversationBusy,
    InvalidRequest,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from chat.models import Conversation, Message, Retrieval
from chat.requests import ChatRequest, CompletionRequest, ContextItem, Strategy
from chat.services import Turn
from inference import services as generations
from inference.errors import StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.tokenizer import Tokenizer
from tests.chat.conftest import SYSTEM
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, messages, more, prompt_of, texts_of
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
    assert not turn.needs_preparing
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
    kept = [(roles[text[0]], text[2:]) for text in sent if text[0] != "s"]
    assert texts_of(turn.conversation_id) == [*kept, ("assistant", "")]


def test_a_history_that_went_on_since_begins_a_new_conversation() -> None:
    """Sending an old state again (an edited message, a retry) must not append to what came after it."""
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
    store = turns.store_plan
    others: list[bool] = []

    def somebody_is_faster(plan: turns.Plan, **key: Any) -> Generation:  # noqa: ANN401
        if not others:
            others.append(True)
            more(first, "theirs")
        return store(plan, **key)

    monkeypatch.setattr(services, "store_plan", somebody_is_faster)
    with pytest.raises(ConversationBusy):
        more(first, "mine")
    assert [text for _, text in texts_of(first.conversation_id)] == ["one", "Fine.", "theirs", ""]


def test_a_found_conversation_that_moved_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chat("u:one")
    finish(first, "first")
    store = turns.store_plan
    others: list[bool] = []

    def somebody_is_faster(plan: turns.Plan, **key: Any) -> Generation:  # noqa: ANN401
        if not others:
            others.append(True)
            more(first, "theirs")
        return store(plan, **key)

    monkeypatch.setattr(services, "store_plan", somebody_is_faster)
    turn = chat("u:one", "a:first", "u:mine")
    assert turn.conversation_id != first.conversation_id
    assert [text for _, text in texts_of(turn.conversation_id)] == ["one", "first", "mine", ""]


# ---- titles ----


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        (" Two\n\nlines\there ", "Two lines here"),
        ("x" * 300, "x" * 80 + " …"),
        ("word " * 40, ("word " * 16).strip() + " …"),
        ("<eos>\x1b[31m", "<eos>\x1b[31m"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert conversation_of(chat(f"u:{text}")).title == title


def test_an_empty_conversation_gets_its_title_with_the_first_message() -> None:
    empty = Conversation.objects.create(owner=ANN.key)
    named = Conversation.objects.create(owner=ANN.key, title="My own")
    chat(conversation_id=empty.pk, message="Hello there")
    chat(conversation_id=named.pk, message="Hello there")
    assert [Conversation.objects.get(pk=each.pk).title for each in (empty, named)] == ["Hello there", "My own"]


# ---- nothing kept ----


def test_nothing_is_kept_without_store() -> None:
    turn = chat("s:be brief", "u:one", "a:first", "u:two", store=False, context=(ContextItem("the document"),))
    assert (turn.conversation_id, turn.message_id) == (None, None)
    assert not Conversation.objects.exists()
    assert not Retrieval.objects.exists()
    generation = generation_of(turn)
    assert generation.ephemeral
    assert generation.annex["sources"][0]["text"] == "the document"
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


# ---- refusals ----


def test_a_prompt_that_does_not_fit_leaves_nothing(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=200))
    with pytest.raises(ContextOverflow) as caught:
        chat("u:" + "x" * 300, max_tokens=10)
    assert (caught.value.status, caught.value.code) == (413, "context_overflow")
    assert caught.value.extra["context_size"] == 200
    assert caught.value.extra["prompt_tokens"] > 300
    assert nothing_stored()


def test_more_tokens_than_the_context_are_refused_and_more_than_is_left_are_cut(
    use_tokenizer: Callable[[Tokenizer], None],
) -> None:
    use_tokenizer(fake_tokenizer(context_size=200))
    with pytest.raises(InvalidRequest) as caught:
        chat("u:hello", max_tokens=201)
    assert caught.value.field == "max_tokens"
    assert nothing_stored()
    generation = generation_of(chat("u:hello", max_tokens=200))
    assert generation.params["max_tokens"] + len(generation.prompt_ids) == 200


@pytest.mark.parametrize("strategy", [Strategy.SUMMARIZE, Strategy.TRUNCATE])
def test_what_was_left_out_is_said(use_tokenizer: Callable[[Tokenizer], None], strategy: Strategy) -> None:
    use_tokenizer(fake_tokenizer(context_size=600))
    history = [text for turn in range(5) for text in (f"u:q{turn} {'x' * 80}", f"a:a{turn} {'y' * 80}")]
    turn = chat(*history, "u:now", max_tokens=10, strategy=strategy)
    note = generation_of(turn).annex["history"]
    assert note["strategy"] == "truncate"
    assert note["messages_left_out"] in range(2, 10, 2)
    with pytest.raises(ContextOverflow):
        chat(*history, "u:now", max_tokens=10, strategy=Strategy.ERROR)


def test_a_full_queue_refuses_and_stores_nothing(settings: Settings) -> None:
    settings.QUEUE_MAX = 1
    chat("u:one")
    with pytest.raises(Unavailable) as caught:
        chat("u:two", caller=BOB)
    assert (caught.value.status, caught.value.code) == (503, "queue_full")
    assert caught.value.retry_after_secs
    assert Conversation.objects.count() == 1


def test_a_callers_own_limit(settings: Settings) -> None:
    settings.QUEUE_MAX_PER_CALLER = 1
    chat("u:one")
    with pytest.raises(TooManyRequests) as caught:
        chat("u:two")
    assert (caught.value.status, caught.value.code) == (429, "caller_limit")
    chat("u:two", caller=BOB)
    assert Conversation.objects.count() == 2


def test_without_redis_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: object) -> None:
        raise StoreUnavailable("Redis does not answer")

    monkeypatch.setattr(generations, "check_capacity", away)
    with pytest.raises(Unavailable) as caught:
        chat("u:hello")
    assert (caught.value.code, caught.value.retry_after_secs) == ("store_unavailable", 5)
    assert nothing_stored()


def test_a_locked_database_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object, **__: object) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(Message.objects, "bulk_create", locked)
    with pytest.raises(Unavailable) as caught:
        chat("u:hello")
    assert caught.value.code == "store_unavailable"
    assert nothing_stored()


# ---- Idempotency-Key ----


def test_the_same_key_and_body_give_the_same_turn() -> None:
    first = chat("u:hello", key="k1")
    again = chat("u:hello", key="k1")
    assert again.replayed
    assert not first.replayed
    assert (again.generation_id, again.conversation_id, again.message_id) == (
        first.generation_id,
        first.conversation_id,
        first.message_id,
    )
    assert Generation.objects.count() == 1
    finish(first)
    assert chat("u:hello", key="k1").generation_id == first.generation_id


def test_the_same_key_with_another_body_is_a_conflict() -> None:
    chat("u:hello", key="k1")
    with pytest.raises(Conflict) as caught:
        chat("u:other", key="k1")
    assert (caught.value.status, caught.value.code) == (409, "idempotency_key_reused")
    assert Generation.objects.count() == 1


def test_a_key_is_its_owners() -> None:
    assert chat("u:hello", key="k1").generation_id != chat("u:hello", key="k1", caller=BOB).generation_id


def test_a_replay_is_not_refused_by_a_full_queue_or_a_busy_conversation(settings: Settings) -> None:
    first = chat("u:hello")
    finish(first)
    second = more(first, "more", key="k1")
    settings.QUEUE_MAX = settings.QUEUE_MAX_PER_CALLER = 1
    assert more(first, "more", key="k1").generation_id == second.generation_id


@pytest.mark.django_db(transaction=True)
def test_two_at_the_same_time_make_one_generation() -> None:
    """Both look for the key before either has stored its row."""
    start, outcomes = threading.Barrier(4), []

    def ask() -> None:
        start.wait()
        try:
            outcomes.append(chat("u:hello", key="k1"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert len({turn.generation_id for turn in outcomes}) == 1
    assert {turn.conversation_id for turn in outcomes} == {Conversation.objects.get().pk}
    assert (Generation.objects.count(), Message.objects.count()) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_two_messages_to_one_conversation_at_the_same_time() -> None:
    first = chat("u:hello")
    finish(first)
    start = threading.Barrier(3)
    outcomes: list[Turn | ChatError] = []

    def ask(text: str) -> None:
        start.wait()
        try:
            outcomes.append(more(first, text))
        except ChatError as error:
            outcomes.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask, args=(f"text {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, Turn) for outcome in outcomes) == 1
    assert all(isinstance(outcome, Turn | ConversationBusy) for outcome in outcomes), outcomes
    assert Message.objects.count() == 4


# ---- raw completions ----


def test_a_completion_is_the_prompt_alone() -> None:
    request = CompletionRequest(prompt="Once <eos> upon", max_tokens=5, stop=("END",))
    turn = services.start_completion(caller=ANN, request=request)
    generation = generation_of(turn)
    assert shown(generation.prompt_ids) == "⟨bos⟩Once <eos> upon"
    assert (generation.ephemeral, generation.params["stop"], turn.conversation_id) == (True, ["END"], None)
    assert not Conversation.objects.exists()


def test_a_completion_that_does_not_fit(use_tokenizer: Callable[[Tokenizer], None]) -> None:
    use_tokenizer(fake_tokenizer(context_size=100))
    services.start_completion(caller=ANN, request=CompletionRequest(prompt="x" * 98, max_tokens=5))
    with pytest.raises(ContextOverflow) as caught:
        services.start_completion(caller=ANN, request=CompletionRequest(prompt="x" * 99, max_tokens=5))
    assert caught.value.extra == {"prompt_tokens": 100, "context_size": 100}


def test_a_completion_with_a_key_is_made_once() -> None:
    request = CompletionRequest(prompt="Once", priority=Priority.BATCH)
    started = [services.start_completion(caller=ANN, request=request, idempotency_key="k") for _ in range(2)]
    assert started[0].generation_id == started[1].generation_id
    assert Generation.objects.get().priority == Priority.BATCH


# ---- looking and stopping ----


def test_only_its_owner_sees_and_stops_a_generation() -> None:
    turn = chat("u:hello")
    assert services.get_generation(caller=ANN, generation_id=turn.generation_id).message.pk == turn.message_id
    for call in (services.get_generation, services.cancel):
        with pytest.raises(NotFound):
            call(caller=BOB, generation_id=turn.generation_id)
    assert generation_of(turn).status == Status.QUEUED


def test_cancelling() -> None:
    turn = chat("u:hello")
    assert services.cancel(caller=ANN, generation_id=turn.generation_id).status == Status.INTERRUPTED
    with pytest.raises(Conflict) as caught:
        services.cancel(caller=ANN, generation_id=turn.generation_id)
    assert caught.value.code == "already_ended"
    assert texts_of(more(turn, "again").conversation_id)[-2:] == [("user", "again"), ("assistant", "")]


def test_a_request_is_not_changed_by_asking() -> None:
    request = ChatRequest(messages=messages("u:hello"))
    before = request.digest
    services.start_turn(caller=ANN, request=request)
    assert request.digest == before
