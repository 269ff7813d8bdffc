"""Calls of functions in /v1/responses: whole, in events, read again, and their way back into the dialogue."""

import json

import httpx
import pytest

from chat.tool_calling.call_text import call_text, results_text
from tests.api.responses.calling import Json, created, resumed, retrieved, say, streamed, text_of, types_of
from tests.api.responses.test_stored import items_of, messages_of

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "name": "weather", "description": "Forecast", "parameters": SCHEMA, "strict": True},
    {"type": "function", "name": "clock"},
]
ROME = '{"city": "Rome", "days": 2}'
RESULTS = ["Rain\n12 degrees", "[[say: Sunny at noon]]"]
BOTH = f"Let me see.\n{call_text('weather', ROME)}\n{call_text('clock', '{}')}"


def calls_of(response: Json) -> list[tuple[str, str]]:
    return [(item["name"], item["arguments"]) for item in response["output"] if item["type"] == "function_call"]


def test_a_call(client: httpx.Client) -> None:
    response = created(client, say(call_text("weather", ROME), tools=TOOLS))
    assert (response["status"], calls_of(response), len(response["output"])) == ("completed", [("weather", ROME)], 1)
    assert (response["tools"], response["tool_choice"]) == (TOOLS, "auto")
    assert retrieved(client, response["id"]) == response


def test_text_and_calls_as_events(client: httpx.Client) -> None:
    events = streamed(client, say(BOTH, tools=TOOLS))
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    message = ["output_text.delta", "output_text.done", "content_part.done", "output_item.done"]
    assert types_of(events) == [
        *["created", "in_progress", "output_item.added", "content_part.added", *message],
        *[*call, *call, "completed"],
    ]
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call", "function_call"]
    assert (response["output"][0]["content"][0]["text"], calls_of(response)) == (
        "Let me see.",
        [("weather", ROME), ("clock", "{}")],
    )
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == response["output"]
    deltas = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    assert "".join(deltas) == ROME + "{}"
    assert len(deltas) > 10
    for number in range(len(events)):
        assert resumed(client, response["id"], number) == events[number + 1 :]
    assert retrieved(client, response["id"]) == response


def test_text_that_only_looks_like_a_call(client: httpx.Client) -> None:
    response = created(client, say("a < b <tool", tools=TOOLS))
    assert (text_of(response), calls_of(response)) == ("a < b <tool", [])
    without = created(client, say(call_text("weather", ROME)))
    assert text_of(without) == call_text("weather", ROME)
    none = created(client, say("x", tools=TOOLS, tool_choice="none"))
    assert (text_of(none), none["tool_choice"]) == ("x", "none")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_a_call_is_required(choice: object, client: httpx.Client) -> None:
    response = created(client, say("no call", tools=TOOLS, tool_choice=choice, parallel_tool_calls=False))
    [(name, arguments)] = calls_of(response)
    assert json.loads(arguments) == {} or name == "weather"
    assert (response["tool_choice"], response["parallel_tool_calls"]) == (choice, False)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_an_allowed_function_is_called(mode: str, client: httpx.Client) -> None:
    choice = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "clock"}]}
    body = say(call_text("weather", ROME), tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    response = created(client, body)
    [(name, arguments)] = calls_of(response)
    assert (name, json.loads(arguments), response["tool_choice"]) == ("clock", {}, choice)
    # All of them are in the prompt.
    whole = created(client, body | {"tool_choice": mode})
    assert whole["usage"]["input_tokens"] == response["usage"]["input_tokens"]


def test_a_call_that_is_cut(client: httpx.Client) -> None:
    n_tokens = len(call_text("weather", ROME).encode()) - 30
    events = streamed(client, say(call_text("weather", ROME), tools=TOOLS, max_output_tokens=n_tokens))
    response = events[-1]["response"]
    [item] = response["output"]
    assert (response["status"], item["status"]) == ("incomplete", "incomplete")
    assert ROME.startswith(item["arguments"])
    assert retrieved(client, response["id"]) == response


@pytest.mark.parametrize("is_sent_whole", [False, True])
def test_outputs_come_back(is_sent_whole: bool, client: httpx.Client) -> None:
    first = created(client, say(BOTH, tools=TOOLS))
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": text}
        for call, text in zip(calls, RESULTS, strict=True)
    ]
    if is_sent_whole:
        question = {"role": "user", "content": say(BOTH)["input"]}
        body: Json = {"input": [question, *first["output"], *outputs]}
    else:
        body = {"input": outputs, "previous_response_id": first["id"]}
    second = created(client, body | {"tools": TOOLS})
    assert text_of(second) == "Sunny at noon"
    assert second["conversation"] == first["conversation"]
    assert messages_of(client, second)[2] == results_text(RESULTS)
    listed = items_of(client, second)["data"]
    assert [item["type"] for item in listed] == [
        *["message", "message", "function_call", "function_call"],
        *["function_call_output", "function_call_output"],
    ]
    assert [item["id"] for item in listed[1:4]] == [item["id"] for item in first["output"]]
    assert [item["call_id"] for item in listed[2:6]] == [call["call_id"] for call in calls] * 2
    assert [item["output"] for item in listed[4:6]] == RESULTS


def test_an_output_alone_is_a_question(client: httpx.Client) -> None:
    first = created(client, say(call_text("weather", ROME), tools=TOOLS))
    output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "[[say: Sunny]]"}
    second = created(client, {"input": [output], "previous_response_id": first["id"], "tools": TOOLS})
    assert text_of(second) == "Sunny"


def output_of(call_id: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": "[[say: Sunny]]"}


@pytest.mark.parametrize("continues", ["previous_response_id", "conversation"])
def test_an_output_without_a_call_is_refused(continues: str, client: httpx.Client) -> None:
    first = created(client, say(BOTH, tools=TOOLS))
    [call, _] = [item["call_id"] for item in first["output"] if item["type"] == "function_call"]
    place = {"previous_response_id": first["id"], "conversation": first["conversation"]["id"]}[continues]
    other = created(client, say(call_text("weather", ROME), tools=TOOLS))["output"][0]["call_id"]
    for wrong in ("call_x", call[:-1] + "7", other):
        body = {"input": [output_of(call), output_of(wrong)], continues: place, "tools": TOOLS}
        answer = client.post("/v1/responses", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1].call_id")
    again = [{"type": "function_call", "call_id": "own", "name": "clock", "arguments": "{}"}, output_of("own")]
    body = {"input": [output_of(call), *again], continues: place, "tools": TOOLS}
    assert text_of(created(client, body)) == "Sunny"


def test_an_output_for_a_call_of_an_earlier_response(client: httpx.Client) -> None:
    first = created(client, say(call_text("weather", ROME), tools=TOOLS))
    call_id = first["output"][0]["call_id"]
    second = created(client, say("later", tools=TOOLS, previous_response_id=first["id"]))
    third = created(client, {"input": [output_of(call_id)], "previous_response_id": second["id"], "tools": TOOLS})
    assert text_of(third) == "Sunny"
    # A branch has copies of the rows.
    branch = created(client, {"input": [output_of(call_id)], "previous_response_id": first["id"], "tools": TOOLS})
    assert branch["conversation"] != first["conversation"]
    late = created(client, {"input": [output_of(call_id)], "previous_response_id": branch["id"], "tools": TOOLS})
    assert text_of(late) == "Sunny"
    plain = created(client, say("x"))
    answer = client.post("/v1/responses", json={"input": [output_of("c")], "previous_response_id": plain["id"]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[0].call_id")
