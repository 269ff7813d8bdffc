"""Turns that are refused, and leave nothing behind; keys that make a request happen once; looking and stopping."""

import threading
from collections.abc import Callable

import pytest
from django.db import OperationalError, connections
from pytest_django import Settings

from chat.enums import Strategy
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
from chat.models import Conversation, Message
from chat.schemas.requests import ChatRequest, CompletionRequest
from chat.services import turn_plan
from chat.services import turns as services
from chat.services.turn_context import TurnContext
from chat.services.turns import Turn
from inference.config.tokenizer import Tokenizer
from inference.errors import StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.queue import generations
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, messages, more, texts_of
from tests.chat.vocabularies import fake_tokenizer, shown

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


def conversation_of(turn: Turn) -> Conversation:
    return generation_of(turn).message.conversation


def nothing_stored() -> bool:
    return not (Conversation.objects.exists() or Message.objects.exists() or Generation.objects.exists())


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
    note = generation_of(turn).details["history"]
    assert note["strategy"] == "truncate"
    assert note["messages_left_out"] in range(2, 11, 2)
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


@pytest.mark.parametrize("because", ["busy", "QUEUE_MAX", "QUEUE_MAX_PER_CALLER"])
def test_a_twin_that_comes_first_is_no_reason_to_be_refused(
    because: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the conversation busy or takes the last place, after the second one has looked for the key."""
    first = chat("u:hello")
    finish(first)

    def ask(key: str) -> Turn:
        return more(first, "more", key=key) if because == "busy" else chat("u:another", key=key)

    if because != "busy":
        setattr(settings, because, 1)
    plan, twins = turn_plan.plan_turn, list[Turn]()

    def plan_late(context: TurnContext) -> turn_plan.TurnPlan:
        if not twins:
            monkeypatch.setattr(services, "plan_turn", plan)
            twins.append(ask("k1"))
        return plan(context)

    monkeypatch.setattr(services, "plan_turn", plan_late)
    second = ask("k1")
    assert (second.replayed, second.generation_id) == (True, twins[0].generation_id)
    with pytest.raises(ChatError):
        ask("k2")


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
    assert shown(generation.prompt_ids) == "⟨bos⟩Once ⟨eos⟩ upon"
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
