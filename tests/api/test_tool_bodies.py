"""``tools`` and ``tool_choice``: refusals that name the field, and the effect of accepted ones."""

import time
from typing import Any

import pytest

from chat.errors import InvalidRequest
from chat.schemas.openai.chat_bodies import chat_completion_request
from chat.schemas.requests import ChatRequest
from chat.tool_calling.tools import ToolMode

USER = {"role": "user", "content": "hi"}


def tool(name: str = "f", **more: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name} | more}


def chosen(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: object, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [chosen(name) for name in names]}}


def request_of(**fields: object) -> ChatRequest:
    return chat_completion_request({"messages": [USER]} | fields)[1]


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


UNKNOWN = {"type": "object", "properties": {"a": {"not": {}}}}
WRONG = {"type": "object", "properties": {"a": {"type": "nothing"}}}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [tool(), {"type": "custom", "custom": {"name": "x"}}]}, "tools[1].type"),
        ({"tools": [tool(f"f{n}") for n in range(127)] + [tool("f7")]}, "tools[127].function.name"),
        ({"tools": [tool(f"f{n}") for n in range(129)]}, "tools"),
        ({"tools": [tool("")]}, "tools[0].function.name"),
        ({"tools": [tool("two words")]}, "tools[0].function.name"),
        ({"tools": [tool('f"')]}, "tools[0].function.name"),
        ({"tools": [tool("f\n")]}, "tools[0].function.name"),
        ({"tools": [tool("f" * 65)]}, "tools[0].function.name"),
        ({"tools": [tool(5)]}, "tools[0].function.name"),  # type: ignore[arg-type]
        ({"tools": [tool(description=5)]}, "tools[0].function.description"),
        ({"tools": [tool(description="x" * 200_000)]}, "tools"),
        ({"tools": [tool(parameters="x")]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters.type"),
        ({"tools": [tool("g"), tool(parameters=WRONG)]}, "tools[1].function.parameters.properties.a"),
        ({"tools": [tool(parameters=UNKNOWN, strict=True)]}, "tools[0].function.parameters.properties.a"),
        ({"tools": [tool(parameters={"const": "\0"})]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters=nested(200))]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"properties": {"a": {"$ref": "https://example.org/a"}}})]},
         "tools[0].function.parameters.properties.a"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": chosen("f")}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": 5}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": chosen("g")}, "tool_choice.function.name"),
        ({"tools": [tool()], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tools": [tool()], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tools": [tool()], "tool_choice": allowed("none", "f")}, "tool_choice.allowed_tools.mode"),
        ({"tools": [tool()], "tool_choice": allowed("auto", "f", "g")},
         "tool_choice.allowed_tools.tools[1].function.name"),
        ({"tool_choice": allowed("auto", "f")}, "tool_choice"),
        ({"tools": [tool()], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"tools": [tool()], "response_format": {"type": "regex", "regex": "a"}}, "response_format.type"),
        ({"tools": [tool()], "grammar": 'start: "a"'}, "grammar"),
        ({"tools": [tool()], "messages": [USER, {"role": "assistant", "content": "I"}]}, "messages"),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "c1", "content": "1"}]}, "messages[1].tool_call_id"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_of(**fields)
    assert caught.value.field == path


def test_choices() -> None:
    tools = [tool("f"), tool("g")]
    by_choice = {
        choice if isinstance(choice, str) else "named": request_of(tools=tools, tool_choice=choice)
        for choice in ("auto", "required", "none", chosen("g"))
    }
    uses = {name: request.tool_use for name, request in by_choice.items()}
    assert {name: use and use.mode for name, use in uses.items()} == {
        "auto": ToolMode.AUTO,
        "required": ToolMode.REQUIRED,
        "none": ToolMode.NONE,
        "named": ToolMode.REQUIRED,
    }
    assert by_choice["none"].grammar == ""
    assert by_choice["auto"].grammar_has_text
    assert not by_choice["required"].grammar_has_text
    assert request_of(tools=tools).grammar == by_choice["auto"].grammar
    assert request_of(tools=tools, parallel_tool_calls=False).grammar != by_choice["auto"].grammar
    assert request_of(tools=[], tool_choice="auto").tool_use is None


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_some_of_the_tools_are_allowed(mode: str) -> None:
    tools = [tool("f"), tool("g"), tool("h")]
    request = request_of(tools=tools, tool_choice=allowed(mode, "h", "f"), parallel_tool_calls=False)
    use = request.tool_use
    assert use is not None
    assert [tool.name for tool in use.offered] == ["f", "g", "h"]
    assert [tool.name for tool in use.callable_tools] == ["f", "h"]
    assert (use.mode, use.parallel) == (ToolMode(mode), False)
    assert request.grammar_has_text is (mode == "auto")
    assert request.grammar != request_of(tools=tools, tool_choice=mode, parallel_tool_calls=False).grammar


def test_keywords_that_only_strict_tools_must_obey() -> None:
    assert request_of(tools=[tool(parameters=UNKNOWN)]).grammar
    assert request_of(tools=[tool(parameters={"properties": {"a": {"oneOf": [{}, {"type": "null"}]}}})]).grammar


def test_many_hostile_tools_take_bounded_time() -> None:
    parameters = {
        "type": "object",
        "properties": {f"p{n}": {"uniqueItems": True, "pattern": f"(a|{n})*"} for n in range(12)},
    }
    began = time.process_time()
    assert request_of(tools=[tool(f"f{n}", parameters=parameters) for n in range(120)]).grammar
    assert time.process_time() - began < 5.0


def test_a_history_of_calls_has_the_text_that_was_generated() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    messages = [
        USER,
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
    ]
    _, called, results = (message.content for message in request_of(messages=messages).messages)
    assert called == (
        'Let me see.\n<tool_call>\n{"name": "f", "arguments": {"x":1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
    )
    assert results == "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
