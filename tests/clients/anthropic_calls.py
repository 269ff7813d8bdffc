"""Calls of the official ``anthropic`` package. The service has scripted answers and takes any model name."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic

from tests.clients.openai_calls import SAY, SLOW_TEXT, Trip, expect

MODEL = "claude-opus-4"
Messages = Any


def ask(text: str) -> Messages:
    return [{"role": "user", "content": text}]


ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 200, "messages": ask(SAY)}
TOOL: Any = {"name": "weather", "description": "Forecast", "input_schema": Trip.model_json_schema()}


def text_of(message: Any) -> str:  # noqa: ANN401  of several classes
    return "".join(block.text for block in message.content if block.type == "text")


def create(client: Anthropic) -> None:
    message = client.messages.create(**ASKED, system="Be brief.", metadata={"user_id": "me"})
    assert (text_of(message), message.stop_reason, message.role) == ("Hello there", "end_turn", "assistant")
    assert message.usage.output_tokens == len("Hello there")
    assert message._request_id
    again = client.messages.create(**ASKED, system="Be brief.")
    assert again.usage.cache_read_input_tokens


def stream(client: Anthropic) -> None:
    events = list(client.messages.create(**ASKED, stream=True))
    assert [event.type for event in events][:2] == ["message_start", "content_block_start"]
    assert [event.type for event in events][-3:] == ["content_block_stop", "message_delta", "message_stop"]
    texts = [event.delta.text for event in events if event.type == "content_block_delta" and "text" in event.delta.type]
    assert "".join(texts) == "Hello there"


def stream_helper(client: Anthropic) -> None:
    with client.messages.stream(**ASKED) as helper:
        assert "".join(helper.text_stream) == "Hello there"
        message = helper.get_final_message()
    assert (text_of(message), message.stop_reason) == ("Hello there", "end_turn")
    assert message.usage.output_tokens == len("Hello there")


def stream_that_is_left(client: Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=2000, messages=ask(SLOW_TEXT)) as helper:
        texts = [text for text, _ in zip(helper.text_stream, range(5), strict=False)]
    assert any(texts)


def count_tokens(client: Anthropic) -> None:
    count = client.messages.count_tokens(model=MODEL, messages=ask(SAY), system="Be brief.")
    usage = client.messages.create(**ASKED, system="Be brief.").usage
    assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert client.messages.count_tokens(model=MODEL, messages=ask(SAY), tools=[TOOL]).input_tokens > count.input_tokens


def tools(client: Anthropic) -> None:
    first = client.messages.create(**ASKED, tools=[TOOL], tool_choice={"type": "any"})
    [use] = [block for block in first.content if block.type == "tool_use"]
    assert Trip.model_validate(use.input)
    assert first.stop_reason == "tool_use"
    result: Any = [{"type": "tool_result", "tool_use_id": use.id, "content": SAY}]
    history: Messages = [
        *ASKED["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": result},
    ]
    second = client.messages.create(model=MODEL, max_tokens=200, messages=history, tools=[TOOL])
    assert text_of(second) == "Hello there"
    with client.messages.stream(**ASKED, tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}) as helper:
        message = helper.get_final_message()
    [use] = [block for block in message.content if block.type == "tool_use"]
    assert Trip.model_validate(use.input)


def beginning(client: Anthropic) -> None:
    messages: Messages = [*ASKED["messages"], {"role": "assistant", "content": "Hello"}]
    assert text_of(client.messages.create(model=MODEL, max_tokens=200, messages=messages)) == " there"


def errors(client: Anthropic) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"messages": ask("x" * 20_000)}, "prompt is too long: "),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0].type"),
    ]
    for fields, message in cases:
        error = expect(anthropic.BadRequestError, partial(client.messages.create, **ASKED | fields))
        assert message in str(error), str(error)
        assert error.body["error"]["type"] == "invalid_request_error"
        assert error.request_id
    expect(anthropic.NotFoundError, lambda: client.get("/v1/messages/nothing", cast_to=object))
    impatient = client.with_options(timeout=0.5, max_retries=0)
    slow = {"model": MODEL, "max_tokens": 2000, "messages": ask(SLOW_TEXT)}
    expect(anthropic.APITimeoutError, partial(impatient.messages.create, **slow))


def asynchronous(client: Anthropic) -> None:
    asyncio.run(_asynchronous(str(client.base_url)))


async def _asynchronous(url: str) -> None:
    async with AsyncAnthropic(base_url=url, api_key="sk-ant-none") as client:
        calls = [
            client.messages.create(model=MODEL, max_tokens=20, messages=ask(f"[[say: {number}]]"))
            for number in range(4)
        ]
        assert [text_of(message) for message in await asyncio.gather(*calls)] == ["0", "1", "2", "3"]
        async with client.messages.stream(**ASKED) as helper:
            assert "".join([text async for text in helper.text_stream]) == "Hello there"


def too_many(client: Anthropic) -> None:
    """The service of these calls lets a caller have eight answers at a time."""
    once = client.with_options(max_retries=0)
    slow: Any = {"model": MODEL, "max_tokens": 2000, "messages": ask(SLOW_TEXT), "stream": True}
    running = [once.messages.create(**slow) for _ in range(8)]
    try:
        error = expect(anthropic.RateLimitError, partial(once.messages.create, **ASKED))
        assert int(error.response.headers["retry-after"]) >= 1
    finally:
        for response in running:
            response.close()


# The one that leaves eight answers behind comes last.
CALLS: tuple[Callable[[Anthropic], None], ...] = (
    create,
    stream,
    stream_helper,
    stream_that_is_left,
    count_tokens,
    tools,
    beginning,
    errors,
    asynchronous,
    too_many,
)
