"""Responses that follow others; stored ones are cancelled, deleted and listed."""

from itertools import pairwise

import httpx
import pytest

from tests.api.responses.calling import (
    PATH,
    Json,
    count,
    created,
    error_of,
    retrieved,
    say,
    streamed,
    text_of,
    types_of,
)
from tests.live_stack import wait_until

PIRATE = "Speak like a pirate. " * 20


def messages_of(client: httpx.Client, response: Json) -> list[str]:
    answer = client.get(f"/api/conversations/{response['conversation']['id']}/messages/?limit=500")
    return [message["content"] for message in answer.json()["results"]]


def following(client: httpx.Client, previous: Json, text: str, **more: object) -> Json:
    return created(client, say(text, previous_response_id=previous["id"], **more))


def test_a_chain_is_one_conversation_with_a_growing_prefix(client: httpx.Client) -> None:
    response = created(client, say("0"))
    cached = [response["usage"]["input_tokens_details"]["cached_tokens"]]
    for number in range(1, 20):
        response = following(client, response, str(number))
        cached.append(response["usage"]["input_tokens_details"]["cached_tokens"])
        assert text_of(response) == str(number)
    assert all(later > earlier for earlier, later in pairwise(cached))
    assert len(messages_of(client, response)) == 40


def test_a_branch(client: httpx.Client) -> None:
    first = created(client, say("root"))
    left, right = following(client, first, "left"), following(client, first, "right")
    assert left["conversation"] == first["conversation"] != right["conversation"]
    assert messages_of(client, right) == ["[[say: root]]", "root", "[[say: right]]", "right"]
    assert messages_of(client, following(client, left, "on"))[2:] == ["[[say: left]]", "left", "[[say: on]]", "on"]
    assert right["usage"]["input_tokens_details"]["cached_tokens"] > 20


def test_instructions_are_not_inherited(client: httpx.Client) -> None:
    items = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "[[say: one]]"}]
    first = created(client, {"input": items, "instructions": PIRATE})
    second = following(client, first, "two")
    again = following(client, second, "three", instructions=PIRATE)
    assert (second["instructions"], second["conversation"]) == (None, first["conversation"])
    sizes = [response["usage"]["input_tokens"] for response in (first, second, again)]
    assert sizes[0] > len(PIRATE) > sizes[1]
    assert sizes[2] - sizes[1] > len(PIRATE)


def test_items_of_the_system_are(client: httpx.Client) -> None:
    items = [{"role": "system", "content": PIRATE}, {"role": "user", "content": "[[say: one]]"}]
    second = following(client, created(client, {"input": items}), "two")
    assert 1000 > second["usage"]["input_tokens"] > len(PIRATE)


def test_instructions_count_for_a_turn_with_memories_too(client: httpx.Client) -> None:
    client.post("/memory/add", json={"title": "Pond", "body": "The pond is emptied on Monday."})
    body = say("On Monday [1].", use_rag=True)
    body["input"] += " When is the pond emptied?"
    long, short = (created(client, body | {"instructions": text}) for text in (PIRATE, "Be brief."))
    assert long["usage"]["input_tokens"] - short["usage"]["input_tokens"] > len(PIRATE) - 50
    assert text_of(long) == "On Monday [1]."


@pytest.mark.parametrize("way", ["previous_response_id", "conversation"])
def test_of_a_running_one(way: str, client: httpx.Client) -> None:
    running = created(client, count(2000, delay_ms=20, background=True))
    value = running["id"] if way == "previous_response_id" else running["conversation"]["id"]
    answer = client.post(PATH, json=say("x", **{way: value}))
    assert error_of(answer)[:2] == (409, "conversation_busy")
    cancelled = client.post(f"{PATH}/{running['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert text_of(created(client, say("x", **{way: value}))) == "x"


@pytest.mark.parametrize("wrong", ["resp_1", "resp_" + "0" * 32, "chatcmpl-1", "x" * 300, "resp_" + "G" * 32])
def test_of_one_that_does_not_exist(wrong: str, client: httpx.Client) -> None:
    answer = client.post(PATH, json=say("x", previous_response_id=wrong))
    assert error_of(answer) == (404, "not_found", "previous_response_id")
    assert client.get(f"{PATH}/{wrong}").status_code == 404


def test_of_an_answer_that_is_no_response(client: httpx.Client) -> None:
    line = client.post("/chat", json={"message": "[[say: x]]"}).json()
    response_id = "resp_" + line["generation_id"].replace("-", "")
    assert error_of(client.get(f"{PATH}/{response_id}")) == (404, "not_found", "response_id")


def test_a_stored_conversation_goes_on(client: httpx.Client) -> None:
    chat = client.post("/chat", json={"message": "[[say: x]]"}).json()
    items = [{"role": "user", "content": "First"}, {"role": "user", "content": "[[say: y]]"}]
    response = created(client, {"input": items, "conversation": {"id": chat["conversation_id"]}})
    assert messages_of(client, response) == ["[[say: x]]", "x", "First", "[[say: y]]", "y"]
    after = client.post("/chat", json={"message": "[[say: z]]", "conversation_id": chat["conversation_id"]}).json()
    assert after["response"] == "z"


def test_a_turn_that_is_not_stored_reads_the_stored_ones(client: httpx.Client) -> None:
    first = created(client, say("root"))
    alone = created(client, say("x", store=False))
    after = following(client, first, "x", store=False)
    assert after["usage"]["input_tokens"] > alone["usage"]["input_tokens"]
    assert messages_of(client, first) == ["[[say: root]]", "root"]
    with_memories = following(client, first, "x", store=False, use_rag=True)
    assert with_memories["usage"]["input_tokens"] >= after["usage"]["input_tokens"]


def test_a_sent_history_finds_its_conversation(client: httpx.Client) -> None:
    first = created(client, say("unlike any other"))
    items = [
        {"role": "user", "content": "[[say: unlike any other]]"},
        first["output"][0],
        {"role": "user", "content": "[[say: more]]"},
    ]
    second = created(client, {"input": items})
    assert (second["conversation"], text_of(second)) == (first["conversation"], "more")


def test_cancel(client: httpx.Client) -> None:
    running = created(client, count(2000, delay_ms=20, background=True))
    wait_until(lambda: retrieved(client, running["id"])["status"] == "in_progress", timeout_secs=10, what="it runs")
    for _ in range(3):
        cancelled = client.post(f"{PATH}/{running['id']}/cancel").json()
        assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    assert retrieved(client, running["id"]) == cancelled
    whole = created(client, say("Hello"))
    assert client.post(f"{PATH}/{whole['id']}/cancel").json() == whole


def test_a_stream_ends_with_a_cancel(client: httpx.Client) -> None:
    running = created(client, count(2000, delay_ms=20, background=True))
    client.post(f"{PATH}/{running['id']}/cancel")
    with client.stream("GET", f"{PATH}/{running['id']}?stream=true") as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("event: ")]
    assert lines[-1] == "event: response.incomplete"


def items_of(client: httpx.Client, response: Json, query: str = "?order=asc") -> Json:
    answer = client.get(f"{PATH}/{response['id']}/input_items{query}")
    assert answer.status_code == 200, answer.text
    page: Json = answer.json()
    return page


def test_input_items(client: httpx.Client) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
        {"role": "system", "content": "Now answer."},
        {"role": "user", "content": "[[say: A cat]]"},
    ]
    first = created(client, {"input": items})
    second = following(client, first, "Yes")
    page = items_of(client, second)
    listed = page["data"]
    kinds = [(item["type"], item.get("role")) for item in listed]
    assert kinds == [
        ("message", "developer"),
        ("message", "user"),
        ("function_call", None),
        ("function_call_output", None),
        ("message", "system"),
        ("message", "user"),
        ("message", "assistant"),
        ("message", "user"),
    ]
    assert (listed[2]["name"], listed[2]["arguments"], listed[3]["output"]) == ("look", '{"at": 1}', "a cat")
    assert listed[6]["id"] == first["output"][0]["id"]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (listed[0]["id"], listed[-1]["id"], False)
    assert items_of(client, second, "")["data"] == listed[::-1]
    part = items_of(client, second, f"?order=asc&limit=2&after={listed[1]['id']}")
    assert (part["data"], part["has_more"]) == (listed[2:4], True)
    for query, field in (("limit=0", "limit"), ("limit=101", "limit"), ("order=up", "order"), ("limit=x", "limit")):
        answer = client.get(f"{PATH}/{second['id']}/input_items?{query}")
        assert error_of(answer) == (400, "invalid_request", field)
    assert error_of(client.get(f"{PATH}/{second['id']}/input_items?after=msg_1")) == (404, "not_found", "after")


def test_delete_in_the_middle(client: httpx.Client) -> None:
    first = created(client, say("one"))
    second = following(client, first, "two")
    third = following(client, second, "three")
    assert client.delete(f"{PATH}/{second['id']}").json()["deleted"] is True
    for call in (client.get, client.delete):
        assert error_of(call(f"{PATH}/{second['id']}")) == (404, "not_found", "response_id")
    assert messages_of(client, third) == ["[[say: one]]", "one", "[[say: three]]", "three"]
    fourth = following(client, third, "four")
    assert messages_of(client, fourth)[-2:] == ["[[say: four]]", "four"]
    # The sent history is compared with the remaining messages.
    history = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": text}
        for n, text in enumerate(messages_of(client, fourth))
    ]
    answer = client.post("/chat", json={"messages": [*history, {"role": "user", "content": "[[say: five]]"}]}).json()
    assert answer["conversation_id"] == fourth["conversation"]["id"]


def test_delete_the_first_and_the_last(client: httpx.Client) -> None:
    first = created(client, say("one"))
    second = following(client, first, "two")
    client.delete(f"{PATH}/{first['id']}")
    conversation = client.get(f"/api/conversations/{second['conversation']['id']}/").json()
    assert conversation["title"] == "[[say: two]]"
    client.delete(f"{PATH}/{second['id']}")
    assert client.get(f"/api/conversations/{second['conversation']['id']}/").status_code == 404


def test_delete_before_one_that_runs(client: httpx.Client) -> None:
    first = created(client, say("one"))
    running = created(client, count(2000, delay_ms=20, background=True, previous_response_id=first["id"]))
    assert error_of(client.delete(f"{PATH}/{first['id']}")) == (409, "conversation_busy", "response_id")
    assert client.delete(f"{PATH}/{running['id']}").status_code == 200
    assert client.delete(f"{PATH}/{first['id']}").status_code == 200


def test_delete_one_of_two_branches(client: httpx.Client) -> None:
    first = created(client, say("root"))
    left, right = following(client, first, "left"), following(client, first, "right")
    client.delete(f"{PATH}/{left['id']}")
    assert messages_of(client, first) == ["[[say: root]]", "root"]
    client.delete(f"{PATH}/{right['id']}")
    assert messages_of(client, right) == ["[[say: root]]", "root"]


def test_too_long_a_dialogue_is_refused_or_truncated(client: httpx.Client) -> None:
    first = created(client, {"input": "x" * 4000 + " [[say: a]]"})
    body = {"input": "x" * 4000 + " [[say: b]]", "previous_response_id": first["id"]}
    refused = client.post(PATH, json=body)
    assert error_of(refused) == (400, "context_length_exceeded", "input")
    response = created(client, body | {"truncation": "auto"})
    assert (text_of(response), response["truncation"]) == ("b", "auto")
    assert (
        types_of(streamed(client, say("c", previous_response_id=response["id"], truncation="auto")))[-1] == "completed"
    )
