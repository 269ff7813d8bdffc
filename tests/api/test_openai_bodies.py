"""Bodies of /v1/chat/completions: the effect of each field, and every refused input."""

from typing import Any

import pytest

from chat.enums import ChatRole
from chat.errors import ChatError, InvalidRequest, NotFound
from chat.schemas.openai.chat_bodies import chat_completion_request
from chat.schemas.requests import QUARTER_CONTEXT, ChatMessage, ChatRequest

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}


def request_of(**fields: object) -> ChatRequest:
    return chat_completion_request({"messages": [USER]} | fields)[1]


def dialogue_of(*messages: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message.role.value, message.content) for message in request_of(messages=list(messages)).messages]


def refusal_of(**fields: object) -> ChatError:
    with pytest.raises(ChatError) as caught:
        request_of(**fields)
    assert caught.value.status < 500
    return caught.value


def test_the_least_body() -> None:
    call, request = chat_completion_request({"messages": [USER]})
    assert request == ChatRequest(
        messages=(ChatMessage(ChatRole.USER, "hi"),),
        max_tokens=QUARTER_CONTEXT,
        has_store_default=True,
        penalizes_answer=True,
    )
    assert (call.model, call.is_stream, call.has_usage_chunk) == (None, False, False)
    assert request.within(8192).max_tokens == 2048


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"max_completion_tokens": 8, "max_tokens": 7}, "max_tokens", 8),
        ({"max_tokens": -1}, "max_tokens", -1),
        ({"stop": "a"}, "stop", ("a",)),
        ({"stop": ["a", "b"]}, "stop", ("a", "b")),
        ({"stop": [""]}, "stop", ()),
        ({"rag_top_k": 0}, "rag_top_k", 5),
        ({"rag_top_k": 500}, "rag_top_k", 100),
        ({"seed": -(2**63)}, "seed", 0),
        ({"seed": 2**32 + 5}, "seed", 5),
        ({"seed": -1}, "seed", None),
        ({"n": 8}, "n", 8),
        ({"logprobs": True}, "n_logprobs", 1),
        ({"logprobs": True, "top_logprobs": 20}, "n_logprobs", 20),
        ({"logprobs": False}, "n_logprobs", 0),
        ({"logit_bias": {"5": -100}}, "logit_bias", {5: -100.0}),
        ({"store": False}, "store", False),
        ({"store": None}, "store", True),
        ({"metadata": {"a": "b"}}, "metadata", {"a": "b"}),
        ({"use_rag": True}, "use_rag", True),
        ({"strategy": "error"}, "strategy", "error"),
        ({"tools": [], "tool_choice": "none", "response_format": {"type": "text"}}, "n", 1),
        ({"modalities": ["text"], "user": "me", "service_tier": "auto", "parallel_tool_calls": True}, "n", 1),
    ],
)
def test_fields(fields: dict[str, Any], name: str, value: object) -> None:
    assert getattr(request_of(**fields), name) == value


def test_roles() -> None:
    assert dialogue_of(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        USER,
        CALLING,
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "system", "content": "Now."},
    ) == [
        ("system", "Be brief.\n\nBe kind."),
        ("user", "hi"),
        ("assistant", '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'),
        ("user", "<tool_response>\n1\n</tool_response>"),
        ("user", "Now."),
    ]


def test_an_instruction_alone_is_the_question() -> None:
    assert dialogue_of({"role": "system", "content": "Write."}) == [("user", "Write.")]
    assert dialogue_of({"role": "system", "content": " "}, USER) == [("user", "hi")]


def test_a_prefill_is_continued_and_not_stored() -> None:
    request = request_of(messages=[USER, {"role": "assistant", "content": [{"type": "text", "text": "Well,"}]}])
    assert (request.prefill, request.store, len(request.messages)) == ("Well,", False, 1)
    assert request_of(messages=[USER, {"role": "assistant", "content": None}]).store is True


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "Well"}]}, "messages"),
        ({"messages": [USER, *[{"role": "assistant", "content": "Well"}] * 2]}, "messages"),
        ({"messages": [USER, {"role": "tool", "content": "1", "tool_call_id": "c1"}]}, "messages[1].tool_call_id"),
        ({"messages": [USER, CALLING, {"role": "tool", "content": "1"}]}, "messages[2].tool_call_id"),
        (
            {"messages": [USER, CALLING, {"role": "tool", "content": "1", "tool_call_id": "c2"}]},
            "messages[2].tool_call_id",
        ),
        (
            {"messages": [USER, CALLING, USER, {"role": "tool", "content": "1", "tool_call_id": "c1"}]},
            "messages[3].tool_call_id",
        ),
        ({"messages": [USER | {"tool_calls": [CALL]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": 1000}, "n"),
        ({"n": 1.5}, "n"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logit_bias": {str(token): 1 for token in range(100_000)}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x" * 257]}, "stop[0]"),
        ({"seed": 2**63}, "seed"),
        ({"temperature": "hot"}, "temperature"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"strategy": "forget"}, "strategy"),
        ({"model": 5}, "model"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
    ],
)
def test_bad_input(fields: dict[str, Any], field: str) -> None:
    error = refusal_of(**fields)
    assert isinstance(error, InvalidRequest)
    assert str(error.field).startswith(field)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("web_search_options", {}),
    ],
)
def test_what_comes_later_is_named(name: str, value: object) -> None:
    error = refusal_of(**{name: value})
    assert (error.status, error.code, error.field) == (400, "unsupported", name)
    assert name in error.message


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,xxxx"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {}},
        {"type": "x" * 10_000},
    ],
)
def test_parts_that_are_no_text(part: dict[str, Any]) -> None:
    error = refusal_of(messages=[{"role": "user", "content": [{"type": "text", "text": "See"}, part]}])
    assert (error.status, error.code, error.field) == (400, "unsupported", "messages[0].content[1].type")
    assert "text only" in error.message
    assert len(error.message) < 250


def test_an_impossible_conversation() -> None:
    assert isinstance(refusal_of(conversation_id="x"), NotFound)


def test_a_continued_answer_in_the_names_of_transformers() -> None:
    beginning = {"role": "assistant", "content": "Wh"}
    messages = [USER, beginning]
    assert request_of(messages=messages, continue_final_message=True, add_generation_prompt=False).prefill == "Wh"
    both = refusal_of(messages=messages, continue_final_message=True, add_generation_prompt=True)
    assert (both.status, both.field) == (400, "add_generation_prompt")
    assert refusal_of(continue_final_message=True).field == "continue_final_message"


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, "none"),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "xhigh"}, "high"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "none"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "on"),
        ({"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "medium"}, "medium"),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, "none"),
        ({"chat_template_kwargs": {}}, None),
        ({"chat_template_kwargs": None, "reasoning_effort": None}, None),
    ],
)
def test_the_effort_of_a_thought(fields: dict[str, Any], effort: str | None) -> None:
    assert request_of(**fields).reasoning_effort == effort
