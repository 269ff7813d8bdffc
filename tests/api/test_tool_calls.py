"""Tools over /v1/chat/completions of a running service: calls whole and in deltas, and their way back into a prompt."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from chat.schemas.decoding import decode
from chat.schemas.openai.chat_answers import ChatCompletionAnswer
from chat.tool_calling.call_text import call_text
from tests.api.live import say
from tests.api.test_openai_chat import events_of, finishes_of, text_of
from tests.live_stack import LiveStack

PATH = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Forecast", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock"}},
]
ROME = call_text("weather", '{"city": "Rome", "days": 2}')


@pytest.fixture
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        yield client


def choice_of(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    decode(ChatCompletionAnswer, answer)
    choice: dict[str, Any] = answer["choices"][0]
    return choice


def calls_of_deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the deltas as clients do."""
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            for delta in choice["delta"].get("tool_calls", ()):
                if delta["index"] == len(calls):
                    calls.append({"id": delta["id"], "type": delta["type"], "function": delta["function"]})
                else:
                    assert set(delta) == {"index", "function"}
                    calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return calls


def test_a_call(client: httpx.Client) -> None:
    choice = choice_of(client, say(ROME, tools=TOOLS))
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome", "days": 2}'}
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_text_beside_calls(client: httpx.Client) -> None:
    body = say(f"Let me see.\n{ROME}\n{call_text('clock', '{}')}", tools=TOOLS)
    choice = choice_of(client, body)
    assert choice["message"]["content"] == "Let me see."
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["weather", "clock"]
    chunks = events_of(client, body)
    assert text_of(chunks) == "Let me see."
    deltas = calls_of_deltas(chunks)
    assert [call["function"] for call in deltas] == [call["function"] for call in choice["message"]["tool_calls"]]
    assert finishes_of(chunks) == [(0, "tool_calls")]
    assert len({call["id"] for call in deltas}) == 2


def test_arguments_stream_as_they_are_written(client: httpx.Client) -> None:
    chunks = events_of(client, say(ROME, tools=TOOLS))
    pieces = [
        delta["function"]["arguments"]
        for chunk in chunks
        for choice in chunk["choices"]
        for delta in choice["delta"].get("tool_calls", ())
    ]
    assert "".join(pieces) == '{"city": "Rome", "days": 2}'
    assert len(pieces) > 10


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_that_has_to_be(client: httpx.Client, choice: object) -> None:
    body = say("I would rather talk", tools=TOOLS[:1], tool_choice=choice, parallel_tool_calls=False, temperature=1.0)
    answer = choice_of(client, body)
    [call] = answer["message"]["tool_calls"]
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    assert answer["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_an_allowed_tool_is_called(client: httpx.Client, mode: str) -> None:
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "clock"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = say(ROME, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    [call] = choice_of(client, body)["message"]["tool_calls"]
    [streamed] = calls_of_deltas(events_of(client, body))
    for function in (call["function"], streamed["function"]):
        assert (function["name"], json.loads(function["arguments"])) == ("clock", {})


def test_no_call_where_none_may_be(client: httpx.Client) -> None:
    choice = choice_of(client, say("<tool_call> is how", tools=TOOLS, tool_choice="none"))
    assert (choice["message"]["content"], choice["finish_reason"]) == ("<tool_call> is how", "stop")
    assert "tool_calls" not in choice["message"]


def test_plain_words_with_tools(client: httpx.Client) -> None:
    for text in ("Hello", "a <tool b", "<tool_cal"):
        choice = choice_of(client, say(text, tools=TOOLS))
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
        assert text_of(events_of(client, say(text, tools=TOOLS))) == text


def test_a_call_that_is_cut(client: httpx.Client) -> None:
    choice = choice_of(client, say(ROME, tools=TOOLS, max_tokens=len(ROME) - 30))
    [call] = choice["message"]["tool_calls"]
    assert ROME.count(call["function"]["arguments"]) == 1
    assert choice["finish_reason"] == "length"


def test_log_probabilities_cover_every_token(client: httpx.Client) -> None:
    body = say(ROME, tools=TOOLS, logprobs=True, top_logprobs=1)
    for tokens in (
        choice_of(client, body)["logprobs"]["content"],
        [
            token
            for chunk in events_of(client, body)
            for choice in chunk["choices"]
            for token in (choice["logprobs"] or {}).get("content", ())
        ],
    ):
        assert "".join(token["token"] for token in tokens) == ROME


def test_the_result_of_a_call_continues_its_conversation(client: httpx.Client) -> None:
    question = {"role": "user", "content": f"[[say: {ROME}]] weather of today"}
    first = client.post(PATH, json={"messages": [question], "tools": TOOLS}).json()
    message = first["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "[[say: It is sunny]]"}
    second = client.post(PATH, json={"messages": [question, message, result], "tools": TOOLS}).json()
    assert second["choices"][0]["message"]["content"] == "It is sunny"
    assert second["conversation_id"] == first["conversation_id"]
    # All but the result: the prompt goes on where the answer ended.
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["total_tokens"] - 1


def test_tools_beside_memories(client: httpx.Client) -> None:
    """The prompt is built after the retrieval, from what the row holds."""
    choice = choice_of(client, say(ROME, tools=TOOLS, use_rag=True))
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"


def test_choices_have_calls_of_their_own(client: httpx.Client) -> None:
    body = say("x", tools=TOOLS[:1], tool_choice="required", n=3, temperature=1.5, seed=1, parallel_tool_calls=False)
    answer = client.post(PATH, json=body).json()
    calls = [call for choice in answer["choices"] for call in choice["message"]["tool_calls"]]
    assert len({call["id"] for call in calls}) == 3
    chunks = events_of(client, body)
    assert finishes_of(chunks) == [(number, "tool_calls") for number in range(3)]


def test_a_repeated_request_has_the_same_calls(client: httpx.Client) -> None:
    first, second = (
        client.post(PATH, json=say(ROME, tools=TOOLS), headers={"Idempotency-Key": "tools-1"}).json() for _ in range(2)
    )
    assert first["choices"] == second["choices"]


def test_tools_are_in_the_prompt(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}
    prompt = client.post("/apply-template", json=body).json()["prompt"]
    assert '"name": "weather"' in prompt
    assert "Forecast" in prompt
    without = client.post("/apply-template", json=body | {"tool_choice": "none"}).json()["prompt"]
    assert "weather" not in without
