"""A full queue and a caller's own limit: refused before anything is stored, with the time to come back."""

import pytest
from pytest_django import Settings

from chat.models import Conversation, Message
from inference.models import Generation
from tests.api.calling import Api
from tests.api.script import queued

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_broker")]
BODY = {"messages": [{"role": "user", "content": "Hello"}], "prompt": "Hello"}
PATHS = ["/chat", "/chat/stream", "/generate"]


def assert_nothing_was_added(n_generations: int) -> None:
    assert Generation.objects.count() == n_generations
    assert not Conversation.objects.exists()
    assert not Message.objects.exists()


@pytest.mark.parametrize("path", PATHS)
def test_a_callers_own_limit(path: str, settings: Settings) -> None:
    settings.QUEUE_MAX_PER_CALLER = 2
    for _ in range(2):
        queued()
    answer = Api().post(path, BODY)
    assert answer.outcome == (429, "caller_limit")
    assert int(answer.headers["Retry-After"]) >= 1
    assert_nothing_was_added(2)


@pytest.mark.parametrize("path", PATHS)
def test_the_whole_queue(path: str, settings: Settings) -> None:
    settings.QUEUE_MAX = 3
    for number in range(3):
        queued(owner=f"user:{number}")
    answer = Api().post(path, BODY)
    assert answer.outcome == (503, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1
    assert_nothing_was_added(3)


def test_what_others_have_queued_does_not_count_as_ones_own(settings: Settings) -> None:
    settings.QUEUE_MAX_PER_CALLER = 1
    queued(owner="user:1")
    mine = queued()
    assert Api().post("/chat", BODY).outcome == (429, "caller_limit")
    cancelled = Api().post(f"/api/generations/{mine.pk}/cancel")
    assert (cancelled.status, cancelled.body["status"]) == (200, "interrupted")
    # There is room again, so the next refusal is about the message, which is looked at later.
    too_long = {"messages": [{"role": "user", "content": "x" * 100_000}]}
    assert Api().post("/chat", too_long).outcome == (413, "context_overflow")


def test_cancel_of_what_waits_and_again() -> None:
    generation = queued()
    path = f"/api/generations/{generation.pk}/cancel"
    assert Api().post(path).body == {"generation_id": str(generation.pk), "status": "interrupted"}
    for _ in range(2):
        assert Api().post(path).outcome == (409, "already_ended")
    generation.refresh_from_db()
    assert (generation.status, generation.finish_reason) == ("interrupted", "cancelled")


LONG = "x" * 100_000


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/chat", {"messages": [user(LONG)]}, "messages"),
        ("/chat", {"message": LONG}, "message"),
        ("/chat/stream", {"message": LONG}, "message"),
        ("/chat", {"message": LONG, "use_rag": True}, "message"),
        ("/chat/rag", {"query": LONG}, "query"),
        ("/chat/rag", {"message": LONG}, "message"),
        ("/generate", {"prompt": LONG}, "prompt"),
        ("/v1/completions", {"prompt": ["a", LONG]}, "prompt"),
        ("/v1/chat/completions", {"messages": [user(LONG)]}, "messages"),
        ("/v1/responses", {"input": LONG}, "input"),
        ("/v1/responses", {"input": [user("a") | {"type": "message"}, user(LONG)]}, "input"),
    ],
)
def test_a_text_that_does_not_fit_is_named_as_it_was_written(path: str, body: dict[str, object], field: str) -> None:
    answer = Api().post(path, body)
    assert answer.status in (400, 413)
    error = answer.body["error"]
    assert error.get("param", error.get("field")) == field
    assert_nothing_was_added(0)


@pytest.mark.parametrize("body", [{"message": " "}, {"message": "\n", "store": False}, {"query": "\u3000"}])
def test_an_empty_text_is_named_as_it_was_written(body: dict[str, object]) -> None:
    answer = Api().post("/chat/rag" if "query" in body else "/chat", body)
    assert answer.status == 400
    assert answer.body["error"]["field"] == next(iter(body))
