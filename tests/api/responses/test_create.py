"""POST /v1/responses of a running service: whole, streamed, in the background."""

from typing import Any

import httpx
import pytest

from tests.api.responses.calling import (
    PATH,
    Json,
    checked,
    count,
    created,
    deltas_of,
    error_of,
    resumed,
    retrieved,
    say,
    streamed,
    text_of,
    types_of,
)
from tests.live_stack import wait_until

WHOLE_STREAM = [
    "created",
    "in_progress",
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
    "completed",
]


def ended(client: httpx.Client, response_id: str) -> Json:
    running = ("queued", "in_progress")
    is_ended = lambda: retrieved(client, response_id)["status"] not in running  # noqa: E731
    wait_until(is_ended, timeout_secs=30, what="the response has ended")
    return retrieved(client, response_id)


def test_a_whole_response(client: httpx.Client) -> None:
    response = created(client, say("Hello", metadata={"run": "7"}, temperature=0.5, instructions="Be brief."))
    assert (response["status"], text_of(response), response["model"]) == ("completed", "Hello", "fake-it")
    assert (response["metadata"], response["temperature"], response["instructions"]) == ({"run": "7"}, 0.5, "Be brief.")
    assert (response["store"], response["background"], response["truncation"]) == (True, False, "disabled")
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert response["completed_at"] >= response["created_at"] > 0
    messages = client.get(f"/api/conversations/{response['conversation']['id']}/messages/").json()["results"]
    assert [message["content"] for message in messages] == ["[[say: Hello]]", "Hello"]
    assert retrieved(client, response["id"]) == response


def test_a_stream(client: httpx.Client) -> None:
    events = streamed(client, say('Hel"lo \u2028 😀'))
    assert types_of(events) == WHOLE_STREAM
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert deltas_of(events) == 'Hel"lo \u2028 😀' == text_of(events[-1]["response"])
    assert retrieved(client, events[0]["response"]["id"]) == events[-1]["response"]


def test_an_empty_answer(client: httpx.Client) -> None:
    events = streamed(client, say(""))
    assert types_of(events) == [kind for kind in WHOLE_STREAM if kind != "output_text.delta"]
    assert text_of(events[-1]["response"]) == ""


def test_in_the_background(client: httpx.Client) -> None:
    response = created(client, count(50, delay_ms=10, background=True))
    assert (response["status"] in ("queued", "in_progress"), response["output"]) == (True, [])
    response = ended(client, response["id"])
    assert (response["status"], text_of(response).split()[-1]) == ("completed", "50")


def test_a_background_stream_that_is_left_goes_on(client: httpx.Client) -> None:
    with client.stream("POST", PATH, json=count(60, delay_ms=20, background=True, stream=True)) as stream:
        first = next(line for line in stream.iter_lines() if line.startswith("data: "))
    response_id = first.partition('"id": "')[2].partition('"')[0]
    response = ended(client, response_id)
    assert (response["status"], text_of(response).split()[-1]) == ("completed", "60")
    assert types_of(resumed(client, response_id)) == ["created", "queued", *WHOLE_STREAM[1:]]


def test_max_output_tokens(client: httpx.Client) -> None:
    events = streamed(client, say("Hello", max_output_tokens=2))
    response = events[-1]["response"]
    assert (events[-1]["type"], response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (text_of(response), response["output"][0]["status"]) == ("He", "incomplete")


def test_parts_and_roles(client: httpx.Client) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "One"}, {"type": "input_text", "text": "two"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Yes", "annotations": []}],
        },
        {"role": "user", "content": "[[say: Hello]]"},
    ]
    assert text_of(created(client, {"input": items})) == "Hello"


@pytest.mark.parametrize("top", [0, 3])
def test_logprobs(top: int, client: httpx.Client) -> None:
    body = say("Hé", include=["message.output_text.logprobs"], top_logprobs=top)
    whole = created(client, body)["output"][0]["content"][0]["logprobs"]
    events = streamed(client, body)
    pieces = [token for event in events if event["type"].endswith("text.delta") for token in event["logprobs"]]
    assert pieces == whole == events[-1]["response"]["output"][0]["content"][0]["logprobs"]
    assert bytes(byte for token in whole for byte in token["bytes"]).decode() == "Hé"
    assert created(client, say("Hé", top_logprobs=top))["output"][0]["content"][0]["logprobs"] == []


def test_nothing_is_kept_without_store(client: httpx.Client) -> None:
    n_before = client.get("/api/conversations/").json()["count"]
    response = created(client, say("Hello", store=False))
    assert (text_of(response), response["conversation"], response["store"]) == ("Hello", None, False)
    assert client.get("/api/conversations/").json()["count"] == n_before
    for call in (client.get, client.delete):
        assert error_of(call(f"{PATH}/{response['id']}")) == (404, "not_found", "response_id")
    following = say("Again", previous_response_id=response["id"])
    assert error_of(client.post(PATH, json=following)) == (404, "not_found", "previous_response_id")


def test_memories_are_cited(client: httpx.Client) -> None:
    client.post("/memory/add", json={"title": "Plan", "body": "The deadline for the garden is Friday."})
    body = say("It is Friday [1].", use_rag=True, rag_top_k=1)
    body["input"] += " When is the deadline for the garden?"
    response = created(client, body)
    [annotation] = response["output"][0]["content"][0]["annotations"]
    assert (annotation["start_index"], annotation["title"]) == (len("It is Friday "), "Plan")
    events = streamed(client, body)
    assert [event["annotation"] for event in events if "annotation" in event] == [annotation]
    background = created(client, body | {"background": True})
    assert ended(client, background["id"])["output"][0]["content"][0]["annotations"] == [annotation]


def test_one_key_is_one_response(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "responses-1"}
    first, second = (created(client, say("Hello"), headers=key) for _ in range(2))
    assert first == second
    assert client.post(PATH, json=say("Other"), headers=key).status_code == 409


def test_errors_have_the_names_of_this_interface(client: httpx.Client) -> None:
    cases: list[tuple[Json, tuple[int, str, str | None]]] = [
        (say("x", max_output_tokens=100_000), (400, "invalid_request", "max_output_tokens")),
        ({"input": "x" * 20_000}, (400, "context_length_exceeded", "input")),
        (say("x", model="gpt-none"), (404, "model_not_found", "model")),
        (say("x", conversation="6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"), (404, "not_found", "conversation")),
    ]
    for body, expected in cases:
        answer = client.post(PATH, json=body)
        assert error_of(answer) == expected
        assert "messages" not in answer.json()["error"]["message"]


def test_the_answer_of_a_whole_and_of_a_streamed_response_agree(client: httpx.Client) -> None:
    def comparable(response: Json) -> dict[str, Any]:
        names = ("status", "text", "truncation", "tools", "model", "error", "background")
        return {name: response[name] for name in names}

    assert comparable(created(client, say("a"))) == comparable(checked(streamed(client, say("a"))[-1]["response"]))
