"""Bodies of /v1/responses with one wrong field each, sent to a running service; and those that are taken."""

import json
from typing import Any

import httpx
import pytest

from chat.schemas.responses.bodies import ResponseBody
from tests.api.responses.calling import PATH, Json, created, error_of, say, streamed, text_of

HUGE = 10**400
TEXTS: tuple[Any, ...] = (5, ["a"], "a\0b")
FLAGS: tuple[Any, ...] = ("true", 1, {})
SCHEMA = {"type": "object", "properties": {"n": {"enum": [4, 5]}}, "required": ["n"], "additionalProperties": False}
FORM = {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA}
TOOL = {"type": "function", "name": "a"}
ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]}
NO_FORM: tuple[Any, ...] = (5, [], "json")
# Field -> values that are refused in its name.
WRONG: dict[str, tuple[Any, ...]] = {
    "input": (None, "", " ", 5, {}, [], "a\0b"),
    "model": (5, "x" * 300, "a\0"),
    "instructions": TEXTS,
    "previous_response_id": TEXTS,
    "conversation": (5, "a\0", {}, {"id": ""}, []),
    "stream": FLAGS,
    "stream_options": (5, [], {"include_obfuscation": True}),
    "background": FLAGS,
    "store": FLAGS,
    "max_output_tokens": (0, -1, "5", 1.5, HUGE, 100_000),
    "max_tokens": (-2, "5", 1.5, HUGE),
    "metadata": (5, {"a": 1}, {"a" * 65: "x"}, {"a": "x" * 513}, {str(n): "x" for n in range(17)}),
    "include": ("a", ["all"], [5], ["reasoning.encrypted_content"] * 51),
    "top_logprobs": (-1, 21, "5", 1.5),
    "truncation": ("none", 5, []),
    "text": (5, {"format": "json"}, {"format": {"type": "xml"}}, {"verbosity": "loud"}),
    "text.format": ({"format": {"type": "json_schema", "name": "x"}}, {"format": {}}, {"format": 5}),
    "reasoning": (5, {"effort": 1}, {"summary": "x" * 33}),
    "parallel_tool_calls": FLAGS,
    "max_tool_calls": (0, "1", HUGE),
    "user": (*TEXTS, "x" * 513),
    "safety_identifier": TEXTS,
    "prompt_cache_key": TEXTS,
    "service_tier": ("fastest", 5, []),
    "use_rag": FLAGS,
    "rag_top_k": (-2, "x", 1.5),
    "strategy": ("forget", 5, []),
    "tools": (
        5,
        [{"type": "web_search"}],
        [{"type": "function"}],
        [{"type": "function", "name": "a b"}],
        [{"type": "function", "name": "a"}, {"type": "function", "name": "a"}],
        [{"type": "function", "name": "a", "parameters": {"type": "array"}}],
        [{"type": "function", "name": "a", "strict": True, "parameters": {"$ref": "https://example.org/x"}}],
        [{"type": "function", "name": f"f{n}"} for n in range(129)],
    ),
    "tool_choice": (5, "maybe", "required", {"type": "web_search"}, {"type": "function", "name": "a"}),
    "prompt": ({"id": "pmpt_1"}, "x", 5),
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
    "stop": (5, [5], ["x"] * 17, "x" * 300),
    "ignore_eos": FLAGS,
    "cache_prompt": FLAGS,
    "recall": FLAGS,
    "reasoning_effort": (5, "extreme", []),
    "chat_template_kwargs": (5, "x", []),
    "session_id": (5, "x" * 129, "a\0"),
    "priority": ("high", 1, []),
    "timeout_s": (0, "1", 1e9),
    "response_format": NO_FORM,
    "json_schema": (5, "x", []),
    "grammar": (5, [], "a\0b"),
}
CASES = [(name, value) for name, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: json.dumps(value)[:30])
def test_a_wrong_field_is_named(name: str, value: object, client: httpx.Client) -> None:
    field = name.partition(".")[0]
    answer = client.post(PATH, json=say("x", store=False) | {field: value})
    status, _, param = error_of(answer)
    assert status in (400, 404)
    assert (param or "").startswith(field), answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_every_field_is_tried() -> None:
    assert set(ResponseBody.__struct_fields__) == {name for name in WRONG if "." not in name}


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{}], "input[0].role"),
        ([{"role": "robot", "content": "x"}], "input[0].role"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": 5}], "input[0].content"),
        ([{"role": "user", "content": ""}], "input[0]"),
        ([{"role": "user", "content": []}], "input[0]"),
        ([{"role": "user", "content": [{}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": "x"}, {"type": "computer_call", "id": "cu_1"}], "input[1].type"),
        ([{"type": 5}], "input[0].type"),
        ([{"type": "function_call_output", "call_id": "c"}], "input[0].output"),
        ([{"type": "function_call_output", "call_id": "c", "output": "x"}], "input[0].call_id"),
        ([{"type": "function_call", "call_id": "c", "name": "f"}], "input[0].arguments"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "input[1]"),
        ([{"type": "reasoning", "summary": []}], "input"),
        ([5], "input[0]"),
    ],
)
def test_a_wrong_item_is_named(items: list[Any], param: str, client: httpx.Client) -> None:
    answer = client.post(PATH, json={"input": items, "store": False})
    status, _, actual = error_of(answer)
    assert (status, actual) == (400, param), answer.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True, "store": False}, "store"),
        ({"previous_response_id": "resp_" + "0" * 32, "conversation": "x"}, "conversation"),
        ({"text": {"format": {"type": "json_object"}}, "grammar": 'root ::= "x"'}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": FORM | {"schema": {"type": "number", "minimum": "x"}}}}, "text.format.schema"),
        ({"text": {"format": FORM | {"schema": {"$ref": "https://example.org/x"}}}}, "text.format.schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "b"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": ALLOWED | {"mode": "none"}}, "tool_choice.mode"),
        ({"tools": [TOOL], "tool_choice": ALLOWED | {"tools": []}}, "tool_choice.tools"),
        ({"tools": [TOOL], "tool_choice": ALLOWED}, "tool_choice.tools[0].name"),
        ({"tools": [], "tool_choice": ALLOWED}, "tool_choice"),
        ({"tools": [TOOL], "grammar": 'root ::= "x"'}, "grammar"),
    ],
)
def test_fields_that_contradict_each_other(fields: Json, param: str, client: httpx.Client) -> None:
    status, _, actual = error_of(client.post(PATH, json=say("x", **fields)))
    assert status == 400
    assert (actual or "").startswith(param)


@pytest.mark.parametrize(
    "fields",
    [
        dict.fromkeys(name for name in WRONG if "." not in name and name != "input"),
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False, "service_tier": "flex"},
        {"include": ["reasoning.encrypted_content", "web_search_call.action.sources"], "reasoning": {"effort": "low"}},
        {"user": "me", "safety_identifier": "me", "prompt_cache_key": "k", "max_tool_calls": 3, "unknown": {"x": 1}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}, "truncation": "auto", "conversation": ""},
        {"stream": False, "background": False, "top_k": 5, "seed": 7, "stop": ["never"], "metadata": {}},
    ],
)
def test_what_asks_for_nothing_is_taken(fields: Json, client: httpx.Client) -> None:
    response = created(client, say("x", **fields))
    assert text_of(response) == "x"
    for name in ("parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key", "max_tool_calls"):
        if fields.get(name) is not None:
            assert response[name] == fields[name]


def test_a_schema_is_obeyed(client: httpx.Client) -> None:
    body = say("no JSON", text={"format": FORM})
    for response in (created(client, body), streamed(client, body)[-1]["response"]):
        assert json.loads(text_of(response))["n"] in (4, 5)
        assert response["text"]["format"] == FORM


def test_any_object(client: httpx.Client) -> None:
    text = {"format": {"type": "json_object"}}
    assert json.loads(text_of(created(client, say('{"n": 4}', text=text)))) == {"n": 4}
    # Drawn texts of a form need not end within the limit; whatever there is begins an object.
    cut = created(client, say("no JSON", text=text, max_output_tokens=20))
    assert text_of(cut).lstrip().startswith("{")
