"""Bodies of /v1/messages with one wrong field each, sent to a running service."""

import json
from typing import Any

import httpx
import pytest

from chat.schemas.anthropic.bodies import MessagesBody
from tests.api.anthropic.calling import PATH, Json, created, error_of, say, text_of

HUGE = 10**400
BLOCK = "messages[0].content[0]"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
TEXTS: tuple[Any, ...] = (5, {}, "a\0b")
FLAGS: tuple[Any, ...] = ("true", 1, {})
# Field -> values that are refused in its name.
WRONG: dict[str, tuple[Any, ...]] = {
    "model": (None, 5, "x" * 300),
    "max_tokens": (None, 0, -1, "5", 1.5, HUGE, 100_000),
    "messages": (None, [], 5, [5], "x"),
    "system": (5, [{"type": "image"}], [{"type": "text"}], "a\0"),
    "stop_sequences": ("x", [5], ["x"] * 17, ["x" * 300]),
    "stream": FLAGS,
    "metadata": (5, {"user_id": 5}, {"user_id": "x" * 513}),
    "tools": (
        5,
        [{}],
        [{"name": "a"}],
        [{"name": "a b", "input_schema": {}}],
        [{"name": "a", "input_schema": {}}, {"name": "a", "input_schema": {}}],
        [{"name": "a", "input_schema": {"type": "array"}}],
        [{"name": "bash", "type": "bash_20250124"}],
        [{"name": "a", "strict": True, "input_schema": {"$ref": "https://example.org/x"}}],
        [{"name": f"f{n}", "input_schema": {}} for n in range(129)],
    ),
    "tool_choice": ("auto", {"type": "some"}, {"type": "any"}, {"type": "tool"}),
    "thinking": ("on", {"type": "on"}, {"type": "enabled", "budget_tokens": 0}),
    "output_config": (5, {"format": {"type": "xml"}}, {"format": {"type": "json_schema"}}, {"effort": 5}),
    "service_tier": ("fast", 5, []),
    "store": FLAGS,
    "conversation_id": (5, [], "nothing"),
    "use_rag": FLAGS,
    "rag_top_k": (-2, "x", 1.5),
    "strategy": ("forget", 5, []),
    "temperature": (-1, 101, "1", HUGE),
    "top_p": (-0.1, 1.1, "1"),
    "top_k": (-2, "1", 1.5),
    "min_p": (-0.1, 1.1, "1"),
    "repeat_penalty": (0, 101, "1"),
    "repeat_last_n": (-2, "64", 1.5, 2**31),
    "presence_penalty": (-101, 101, "1"),
    "frequency_penalty": (-101, 101, "1"),
    "logit_bias": (5, {"a": 1}, {"1": "x"}),
    "seed": (-2, "1", 2**32),
    "stop": (5, [5], ["x"] * 17),
    "ignore_eos": FLAGS,
    "cache_prompt": FLAGS,
    "recall": FLAGS,
    "reasoning_effort": (5, "extreme", []),
    "chat_template_kwargs": (5, "x", []),
    "session_id": TEXTS,
    "priority": ("high", 1, []),
    "timeout_s": (0, "1", 1e9),
    "response_format": (5, [], "json"),
    "json_schema": (5, "x", []),
    "grammar": (5, [], "a\0b"),
}
CASES = [(name, value) for name, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: json.dumps(value)[:30])
def test_a_wrong_field_is_named(name: str, value: object, client: httpx.Client) -> None:
    status, kind, message = error_of(client.post(PATH, json=say("x", store=False) | {name: value}))
    assert (status, kind) in ((400, "invalid_request_error"), (404, "not_found_error"))
    assert name in message or name == "conversation_id"


def test_every_field_is_tried() -> None:
    assert set(MessagesBody.__struct_fields__) == set(WRONG)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": ""}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "image", "source": {}}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "document"}]}], "messages[0].content[0].source"),
        ([{"role": "user", "content": [{"type": "document", "source": {}}]}], f"{BLOCK}.source.type"),
        ([{"role": "user", "content": [{"type": "document", "source": "x"}]}], f"{BLOCK}.source.type"),
        (
            [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}]}],
            f"{BLOCK}.source.type",
        ),
        ([{"role": "user", "content": [{"type": "document", "source": {"type": "text"}}]}], f"{BLOCK}.source.data"),
        (
            [{"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": [IMAGE]}}]}],
            f"{BLOCK}.source.content[0].type",
        ),
        ([{"role": "user", "content": [{"type": "search_result"}]}], f"{BLOCK}.content"),
        ([{"role": "user", "content": [{"type": "search_result", "content": [IMAGE]}]}], f"{BLOCK}.content[0].type"),
        (
            [{"role": "assistant", "content": [{"type": "search_result", "content": []}]}, say("x")["messages"][0]],
            f"{BLOCK}.type",
        ),
        (
            [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}],
            "messages[0].content[0].tool_use_id",
        ),
        ([{"role": "user", "content": [{"type": "tool_result"}]}], "messages[0].content[0].tool_use_id"),
        (
            [{"role": "user", "content": [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]}],
            "messages[0].content[0].type",
        ),
        ([{"role": "assistant", "content": "x"}], "messages"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": [{}]}], "messages[1].content[0].type"),
    ],
)
def test_a_wrong_message_is_named(messages: list[Any], param: str, client: httpx.Client) -> None:
    for path in (PATH, f"{PATH}/count_tokens"):
        answer = client.post(path, json=say("x", store=False) | {"messages": messages})
        assert error_of(answer)[:2] == (400, "invalid_request_error")
        assert answer.json()["error"]["param"] == param, answer.text


def test_what_asks_for_nothing_is_taken(client: httpx.Client) -> None:
    fields: Json = dict.fromkeys(name for name in WRONG if name not in ("model", "max_tokens", "messages"))
    assert text_of(created(client, say("x", **fields))) == "x"
    thinking = {"type": "enabled", "budget_tokens": 2000}
    body = say("x", thinking=thinking, tools=[], tool_choice={"type": "auto"}, unknown=1, service_tier="auto")
    assert text_of(created(client, body)) == "x"


def test_a_schema_is_obeyed(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [4, 5]}}, "required": ["n"], "additionalProperties": False}
    body = say("no JSON", output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(text_of(created(client, body)))["n"] in (4, 5)
