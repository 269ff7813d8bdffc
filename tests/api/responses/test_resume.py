"""Events of a response that are read again: from any number on, while it runs, after it ended, without a token log."""

from uuid import UUID

import httpx
import pytest
import redis

from inference.runtime.redis_client import log_key
from tests.api.live import make_users
from tests.api.responses.calling import (
    PATH,
    Json,
    count,
    created,
    deltas_of,
    error_of,
    events_in,
    resumed,
    retrieved,
    say,
    streamed,
)
from tests.live_stack import LiveStack


@pytest.fixture
def token_logs(fake_stack: LiveStack) -> "redis.Redis[bytes]":
    return redis.Redis.from_url(f"unix://{fake_stack.data_dir}/run/valkey.sock")


def test_after_every_event(client: httpx.Client) -> None:
    events = streamed(client, say("Hé 😀", background=True))
    response_id = events[0]["response"]["id"]
    assert resumed(client, response_id) == events
    for number in range(len(events) + 2):
        assert resumed(client, response_id, number) == events[number + 1 :]


@pytest.mark.parametrize(
    "body",
    [
        say("Hé 😀"),
        say("one two", stop=" t"),
        say("Hello", max_output_tokens=2),
        say(""),
        say("Hi", include=["message.output_text.logprobs"], top_logprobs=2),
    ],
)
def test_without_its_token_log(body: Json, client: httpx.Client, token_logs: "redis.Redis[bytes]") -> None:
    events = streamed(client, body)
    response = events[-1]["response"]
    generation_id = UUID(response["id"].removeprefix("resp_"))
    assert token_logs.delete(log_key(generation_id)) == 1
    assert resumed(client, response["id"]) == events
    assert resumed(client, response["id"], 4) == events[5:]
    assert retrieved(client, response["id"]) == response


def test_again_and_again_while_it_runs(client: httpx.Client) -> None:
    response_id = created(client, count(80, delay_ms=10, background=True))["id"]
    events: list[Json] = []
    while not events or events[-1]["type"] != "response.completed":
        parameters = {"stream": "true"} | ({"starting_after": str(len(events) - 1)} if events else {})
        with client.stream("GET", f"{PATH}/{response_id}", params=parameters) as stream:
            events += [event for event, _ in zip(events_in(stream), range(20), strict=False)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert deltas_of(events) == "".join(f"{number} " for number in range(1, 81))
    assert resumed(client, response_id) == events


def test_a_deleted_response_ends_its_stream(client: httpx.Client) -> None:
    with client.stream("POST", PATH, json=count(2000, delay_ms=20, stream=True)) as stream:
        source = events_in(stream)
        response_id = next(source)["response"]["id"]
        [next(source) for _ in range(8)]
        assert client.delete(f"{PATH}/{response_id}").json() == {
            "id": response_id,
            "object": "response",
            "deleted": True,
        }
        last = list(source)[-1]
    assert (last["type"], last["code"]) == ("error", "not_found")
    assert error_of(client.get(f"{PATH}/{response_id}?stream=true")) == (404, "not_found", "response_id")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stream=perhaps", "stream"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=two", "starting_after"),
        ("stream=true&starting_after=²", "starting_after"),
        ("stream=true&starting_after=99999999999999999999", "starting_after"),
        ("starting_after=3", "starting_after"),
    ],
)
def test_wrong_parameters(query: str, field: str, client: httpx.Client) -> None:
    response_id = created(client, say("Hello"))["id"]
    assert error_of(client.get(f"{PATH}/{response_id}?{query}")) == (400, "invalid_request", field)


def test_of_another_user(client: httpx.Client, fake_stack: LiveStack) -> None:
    response_id = created(client, say("Hello"))["id"]
    [eve] = make_users(fake_stack, "eve")
    url = f"{PATH}/{response_id}"
    for query in ("", "?stream=true", "?stream=true&starting_after=2"):
        assert error_of(client.get(url + query, headers=eve.headers)) == (404, "not_found", "response_id")
