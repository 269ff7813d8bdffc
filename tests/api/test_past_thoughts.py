"""Thoughts that clients send back with their histories are read by every interface, and stored."""

from typing import Any

import pytest

from chat.errors import InvalidRequest
from chat.schemas.anthropic.bodies import messages_request
from chat.schemas.openai.chat_bodies import chat_completion_request
from chat.schemas.requests import ChatRequest
from chat.schemas.responses.bodies import responses_request

Json = dict[str, Any]
USER: Json = {"role": "user", "content": "hi"}


def openai_thoughts(*answers: Json) -> list[str]:
    messages = [message for answer in answers for message in (USER, {"role": "assistant", "content": "yes"} | answer)]
    return thoughts_of(chat_completion_request({"messages": [*messages, USER]})[1])


def thoughts_of(request: ChatRequest) -> list[str]:
    return [message.thought for message in request.messages if message.role == "assistant"]


def test_reasoning_content_of_openais_messages() -> None:
    assert openai_thoughts({"reasoning_content": "Hm."}, {}, {"reasoning_content": None}) == ["Hm.", "", ""]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert openai_thoughts({"content": "", "reasoning_content": "Hm.", "tool_calls": []}) == ["Hm."]
    messages = [USER, {"role": "assistant", "reasoning_content": "Why", "tool_calls": [call]}]
    results = [{"role": "tool", "tool_call_id": "c", "content": "1"}]
    assert thoughts_of(chat_completion_request({"messages": [*messages, *results]})[1]) == ["Why"]


@pytest.mark.parametrize("value", [5, ["a"], {"text": "a"}])
def test_reasoning_content_is_a_text(value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai_thoughts({"reasoning_content": value})
    assert caught.value.field == "messages[1].reasoning_content"


@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_nobody_else_has_thoughts(role: str) -> None:
    message = {"role": role, "content": "x", "tool_call_id": "c", "reasoning_content": "Hm."}
    with pytest.raises(InvalidRequest) as caught:
        chat_completion_request({"messages": [message, USER]})
    assert caught.value.field == "messages[0].reasoning_content"


def reasoning(*texts: str) -> Json:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text} for text in texts]}


def answer_item(text: str) -> Json:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


CALL: Json = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "c", "output": "1"}


@pytest.mark.parametrize(
    ("items", "thoughts"),
    [
        ([USER, reasoning("a"), answer_item("yes"), USER], ["a"]),
        ([USER, reasoning("a", "b"), reasoning("c"), answer_item("yes"), USER], ["a\nb\n\nc"]),
        ([USER, reasoning("a"), CALL, OUTPUT, reasoning("b"), answer_item("yes"), USER], ["a", "b"]),
        ([USER, answer_item("yes"), reasoning("late"), CALL, OUTPUT], ["late"]),
        ([USER, answer_item("yes"), USER], [""]),
        ([USER, {"type": "reasoning", "encrypted_content": "x"}, answer_item("yes"), USER], [""]),
        ([reasoning("before a question"), USER], []),
        ([USER, reasoning("at the end")], []),
    ],
)
def test_reasoning_items_of_responses(items: list[Json], thoughts: list[str]) -> None:
    assert thoughts_of(responses_request({"input": items})[1]) == thoughts


def test_other_parts_of_a_reasoning_item_are_refused() -> None:
    item = {"type": "reasoning", "content": [{"type": "input_image", "text": "x"}]}
    with pytest.raises(InvalidRequest) as caught:
        responses_request({"input": [USER, item, answer_item("yes"), USER]})
    assert caught.value.field == "input[1].content[0].type"


def test_thinking_blocks_of_anthropic() -> None:
    blocks = [
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "thinking", "thinking": "b"},
        {"type": "text", "text": "yes"},
    ]
    body: Json = {"model": "m", "max_tokens": 9, "messages": [USER, {"role": "assistant", "content": blocks}, USER]}
    assert thoughts_of(messages_request(body)[1]) == ["a\n\nb"]
    for wrong, field in ((dict(blocks[0], thinking=5), ".thinking"), ({"type": "thinking"}, ".thinking")):
        body["messages"][1]["content"] = [wrong, blocks[3]]
        with pytest.raises(InvalidRequest) as caught:
            messages_request(body)
        assert caught.value.field == f"messages[1].content[0]{field}"
    body["messages"] = [{"role": "user", "content": [blocks[0], blocks[3]]}]
    with pytest.raises(InvalidRequest) as caught:
        messages_request(body)
    assert caught.value.field == "messages[0].content[0].type"
