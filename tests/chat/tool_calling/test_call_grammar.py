"""The grammar of an answer with tools, token by token."""

from typing import Any

import pytest
from llguidance import LLMatcher

from chat.tool_calling.call_grammar import MAX_CALLS, calls_grammar
from chat.tool_calling.call_text import call_text
from chat.tool_calling.tools import Tool, ToolMode, ToolUse
from inference.runtime.grammar_check import byte_tokenizer, grammar_problem

WEATHER = Tool(
    name="weather",
    parameters={"properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
)
CLOCK = Tool(name="clock")
ROME, NOW = call_text("weather", '{"city": "Rome"}'), call_text("clock", "{}")


def accepts(use: ToolUse, text: str, **options: Any) -> bool:  # noqa: ANN401
    grammar = calls_grammar(use, **options)
    assert grammar_problem(grammar) == ""
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0)
    tokens = list(text.encode())
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


AUTO = ToolUse(tools=(WEATHER, CLOCK))
REQUIRED = ToolUse(tools=(WEATHER, CLOCK), mode=ToolMode.REQUIRED)
NAMED = ToolUse(tools=(WEATHER, CLOCK), mode=ToolMode.REQUIRED, name="clock")
SINGLE = ToolUse(tools=(WEATHER, CLOCK), parallel=False)
SOME = ToolUse(tools=(WEATHER, CLOCK), allowed=("clock",))
ONE_OF_SOME = ToolUse(tools=(WEATHER, CLOCK), mode=ToolMode.REQUIRED, allowed=("clock", "weather"), parallel=False)


@pytest.mark.parametrize(
    ("use", "text", "is_accepted"),
    [
        (AUTO, "Hello", True),
        (AUTO, "a < b <tool", True),
        (AUTO, ROME, True),
        (AUTO, f"Let me see.\n{ROME}\n{NOW}", True),
        (AUTO, f"{ROME} and more", False),
        (AUTO, "<tool_call>", False),
        (AUTO, "<tool_call> is how I call", False),
        (AUTO, call_text("weather", "{}"), False),
        (AUTO, call_text("weather", '{"city": 5}'), False),
        (AUTO, call_text("weather", '{"city": "x", "more": 1}'), False),
        (AUTO, call_text("other", "{}"), False),
        (AUTO, call_text("clock", "[]"), False),
        (AUTO, call_text("clock", '{"a": 1}'), False),
        (REQUIRED, "Hello", False),
        (REQUIRED, f"Hello {ROME}", False),
        (REQUIRED, f"{ROME}\n{NOW}", True),
        (REQUIRED, "\n".join([NOW] * MAX_CALLS), True),
        (REQUIRED, "\n".join([NOW] * (MAX_CALLS + 1)), False),
        (NAMED, NOW, True),
        (NAMED, ROME, False),
        (NAMED, f"{NOW}\n{NOW}", False),
        (SOME, "Hello", True),
        (SOME, f"{NOW}\n{NOW}", True),
        (SOME, ROME, False),
        (SOME, f"{NOW}\n{ROME}", False),
        (ONE_OF_SOME, ROME, True),
        (ONE_OF_SOME, f"{NOW}\n{ROME}", False),
        (ONE_OF_SOME, "Hello", False),
        (SINGLE, ROME, True),
        (SINGLE, f"{ROME}\n{NOW}", False),
    ],
)
def test_what_an_answer_may_be(use: ToolUse, text: str, *, is_accepted: bool) -> None:
    assert accepts(use, text) is is_accepted


CITY = {"city": {"type": "string"}}


@pytest.mark.parametrize(
    ("parameters", "arguments", "is_accepted"),
    [
        ({"properties": {}}, "{}", True),
        ({"properties": {}}, '{"a": 1}', False),
        ({"properties": CITY}, '{"city": "Rome"}', True),
        ({"properties": CITY}, '{"city": "Rome", "a": 1}', False),
        ({"properties": CITY, "required": ["city"]}, '{"city": "Rome", "a": 1}', False),
        ({"type": "object"}, '{"a": 1}', True),
        ({"properties": CITY, "additionalProperties": True}, '{"city": "Rome", "a": 1}', True),
        ({"properties": CITY, "additionalProperties": {"type": "integer"}}, '{"city": "Rome", "a": 1}', True),
        ({"properties": CITY, "patternProperties": {"^a$": {"type": "integer"}}}, '{"city": "Rome", "a": 1}', True),
        ({"properties": CITY, "required": ["a"]}, '{"city": "Rome", "a": 1}', True),
        ({"properties": CITY, "allOf": [{"properties": {"a": {}}, "required": ["a"]}]}, '{"city": "x", "a": 1}', True),
        ({"properties": CITY, "anyOf": [{"required": ["a"]}, {"required": ["city"]}]}, '{"city": "x", "a": 1}', True),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": CITY}}}, '{"city": "Rome", "a": 1}', True),
        ({"properties": {"of": {"properties": CITY}}}, '{"of": {"city": "Rome", "a": 1}}', True),
    ],
)
def test_arguments_that_a_tool_does_not_name(parameters: dict[str, Any], arguments: str, *, is_accepted: bool) -> None:
    tool = Tool(name="weather", parameters=parameters)
    use = ToolUse(tools=(tool,), mode=ToolMode.REQUIRED)
    assert accepts(use, call_text("weather", arguments)) is is_accepted
    assert tool.declaration["function"]["parameters"] == {"type": "object", **parameters}


def test_text_of_a_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    assert accepts(AUTO, '{"a": 1}', text_schema=schema)
    assert accepts(AUTO, ROME, text_schema=schema)
    assert not accepts(AUTO, "Hello", text_schema=schema)


def test_unknown_keywords_of_a_lenient_tool() -> None:
    tool = Tool(name="f", parameters={"properties": {"a": {"type": "array", "uniqueItems": True}}})
    assert grammar_problem(calls_grammar(ToolUse(tools=(tool,))))
    assert accepts(ToolUse(tools=(tool,)), call_text("f", '{"a": [1]}'), lenient=[tool])
    assert not accepts(ToolUse(tools=(tool,)), call_text("f", '{"a": 1}'), lenient=[tool])


def test_no_tool_is_offered_where_none_may_be_called() -> None:
    assert ToolUse(tools=(WEATHER,), mode=ToolMode.NONE).offered == ()
