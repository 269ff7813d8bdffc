"""Answers with calls, taken apart whole and in pieces of every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.tool_calling.call_parser import (
    AnswerDelta,
    ArgumentsDelta,
    CallStart,
    ParsedAnswer,
    ParsedCall,
    ToolCallParser,
    parse_answer,
)
from chat.tool_calling.call_text import answer_text, call_text

CALL = call_text("f", '{"a": "}\\"{", "b": [{}]}')


def parsed_in_pieces(text: str, sizes: list[int]) -> ParsedAnswer:
    parser, events, at = ToolCallParser(), [], 0
    for size in sizes:
        events += parser.push(text[at : at + size])
        at += size
    events += [*parser.push(text[at:]), *parser.flush()]
    calls: list[ParsedCall] = []
    for event in events:
        if isinstance(event, CallStart):
            assert event.index == len(calls)
            calls.append(ParsedCall(event.name))
        elif isinstance(event, ArgumentsDelta):
            calls[event.index].arguments += event.text
    return ParsedAnswer("".join(event.text for event in events if isinstance(event, AnswerDelta)), tuple(calls))


@pytest.mark.parametrize(
    ("text", "answer", "calls"),
    [
        ("", "", []),
        ("Hello", "Hello", []),
        ("  Hello \n", "  Hello \n", []),
        ("a <tool b <tool_call", "a <tool b <tool_call", []),
        (CALL, "", [("f", '{"a": "}\\"{", "b": [{}]}')]),
        (f"Let me see.\n{CALL}", "Let me see.", [("f", '{"a": "}\\"{", "b": [{}]}')]),
        (f"{call_text('f', '{}')}\n{call_text('g', '')}", "", [("f", "{}"), ("g", "{}")]),
        (call_text("f", '{"a": "</tool_call>"}'), "", [("f", '{"a": "</tool_call>"}')]),
        (call_text("f", '{"a": "<tool_call>"}'), "", [("f", '{"a": "<tool_call>"}')]),
        (CALL[:20], "", []),  # cut within the name
        (CALL[:45], "", [("f", '{"a": ')]),  # cut within the arguments
        (f"{CALL}\n<tool", "", [("f", '{"a": "}\\"{", "b": [{}]}')]),
    ],
)
def test_an_answer_is_taken_apart(text: str, answer: str, calls: list[tuple[str, str]]) -> None:
    parsed = parse_answer(text)
    assert parsed.text == answer
    assert [(call.name, call.arguments) for call in parsed.calls] == calls
    for size in range(1, 8):
        assert parsed_in_pieces(text, [size] * (len(text) // size)) == parsed


@given(st.text("<tool_call>/ \nab"), st.lists(st.text('<tool_call>/{}[]"\\ \nab')), st.lists(st.integers(0, 9)))
def test_pieces_do_not_matter(content: str, strings: list[str], sizes: list[int]) -> None:
    arguments = [f'{{"a": {_quoted(text)}}}' for text in strings]
    text = answer_text(content, [("f", text) for text in arguments])
    assert parsed_in_pieces(text, sizes) == parse_answer(text)
    if "<tool_call>" not in content:
        assert [call.arguments for call in parse_answer(text).calls] == arguments


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
