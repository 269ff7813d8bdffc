"""Calls of the official ``openai`` package, 1.x and 2.x: ``python openai_calls.py URL`` runs them all.

Imports nothing of this project, so that it runs in an environment with another version. The service has scripted
answers and takes any model name.
"""

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

MODEL = "gpt-4o"
Messages = Any  # the package's own types are exact to the letter, and differ between its versions


def ask(text: str) -> Messages:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


class Trip(BaseModel, extra="forbid"):
    """A schema whose shortest text has few characters."""

    city: Literal["Rome", "Oslo"]


SAY = "[[say: Hello there]]"
SLOW_TEXT = "[[delay: 50]] [[count: 2000]]"
HELLO = ask("[[say: Hello there]]")
SLOW = ask("[[delay: 50]] [[count: 2000]]")


def chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0, seed=7, user="me")
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer._request_id


def chat_with_parts_and_choices(client: OpenAI) -> None:
    messages: Messages = [{"role": "user", "content": [{"type": "text", "text": "[[say: Hello]]"}]}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, n=3, logprobs=True, top_logprobs=2)
    assert [choice.message.content for choice in answer.choices] == ["Hello"] * 3
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert "".join(token.token for token in choice.logprobs.content or []) == "Hello"


def stream(client: OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len("Hello there")


def stream_that_is_left(client: OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=SLOW, stream=True) as response:
        texts = [chunk.choices[0].delta.content for chunk, _ in zip(response, range(8), strict=False)]
    assert any(texts)


def stream_helper(client: OpenAI) -> None:
    chats: Any = client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
    with chats.stream(model=MODEL, messages=HELLO) as response:
        kinds = {event.type for event in response}
        answer = response.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert answer.choices[0].message.content == "Hello there"


def extensions(client: OpenAI) -> None:
    first = client.chat.completions.create(model=MODEL, messages=HELLO, metadata={"run": "1"}, store=True)
    extra = {"conversation_id": first.model_extra["conversation_id"], "top_k": 5, "use_rag": False}  # type: ignore[index]
    question: Messages = [{"role": "user", "content": "[[say: Again]]"}]
    second = client.chat.completions.create(model=MODEL, messages=question, extra_body=extra)
    assert second.choices[0].message.content == "Again"
    assert second.model_extra["conversation_id"] == first.model_extra["conversation_id"]  # type: ignore[index]


def completions(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["[[say: One]]", "[[say: Two]]"], max_tokens=9, logprobs=1)
    assert [choice.text for choice in answer.choices] == ["One", "Two"]
    pieces = client.completions.create(model=MODEL, prompt="[[say: One]]", echo=True, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "[[say: One]]One"


def models(client: OpenAI) -> None:
    [model] = client.models.list()
    assert client.models.retrieve(model.id).id == model.id


def embeddings(client: OpenAI) -> None:
    texts = ["one", "two"]
    by_default = client.embeddings.create(model="text-embedding-3-small", input=texts)  # base64 on the wire
    floats = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    for left, right in zip(by_default.data, floats.data, strict=True):
        assert len(left.embedding) == 384
        assert max(abs(a - b) for a, b in zip(left.embedding, right.embedding, strict=True)) < 1e-6
    assert len(client.embeddings.create(model="x", input="one", dimensions=64).data[0].embedding) == 64


def raw_response(client: OpenAI) -> None:
    response = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    assert response.headers["x-request-id"]
    assert response.parse().choices[0].message.content == "Hello there"
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO) as streamed:
        assert b"Hello there" in streamed.read()


def structured_answer(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    answer_format: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, response_format=answer_format)
    assert json.loads(answer.choices[0].message.content or "")["n"] in (1, 2)
    any_object: Any = {"type": "json_object"}
    text = ask('[[say: {"any": ["thing"]}]]')
    answer = client.chat.completions.create(model=MODEL, messages=text, response_format=any_object)
    assert json.loads(answer.choices[0].message.content or "") == {"any": ["thing"]}


class Step(BaseModel):
    kind: Literal["add", "subtract"]
    amount: int


class Plan(BaseModel):
    steps: list[Step]
    note: str | None


def parsed_answer(client: OpenAI) -> None:
    plan = '{"steps": [{"kind": "add", "amount": 5}], "note": null}'
    chats: Any = client.chat.completions if hasattr(client.chat.completions, "parse") else client.beta.chat.completions
    answer = chats.parse(model=MODEL, messages=ask(f"[[say: {plan}]]"), response_format=Plan)
    assert answer.choices[0].message.parsed == Plan(steps=[Step(kind="add", amount=5)], note=None)
    with chats.stream(model=MODEL, messages=ask(f"[[say: {plan}]]"), response_format=Plan) as response:
        parsed = response.get_final_completion().choices[0].message.parsed
    assert parsed == Plan(steps=[Step(kind="add", amount=5)], note=None)


def tool_calls(client: OpenAI) -> None:
    call = '<tool_call>\n{"name": "Step", "arguments": {"kind": "add", "amount": 2}}\n</tool_call>'
    question = ask(f"[[say: {call}]]")
    tools: Any = [openai.pydantic_function_tool(Step)]
    answer = client.chat.completions.create(model=MODEL, messages=question, tools=tools)
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    [made] = message.tool_calls or []
    assert made.type == "function"
    assert json.loads(made.function.arguments) == {"kind": "add", "amount": 2}
    result: Any = {"role": "tool", "tool_call_id": made.id, "content": "[[say: It is 2]]"}
    history = [*question, message.model_dump(exclude_none=True), result]
    final = client.chat.completions.create(model=MODEL, messages=history, tools=tools)
    assert final.choices[0].message.content == "It is 2"
    forced: Any = {"type": "function", "function": {"name": "Step"}}
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=tools, tool_choice=forced, max_tokens=200
    )
    Step.model_validate_json((answer.choices[0].message.tool_calls or [])[0].function.arguments)  # type: ignore[union-attr]


def parsed_tool_calls(client: OpenAI) -> None:
    call = '<tool_call>\n{"name": "Step", "arguments": {"kind": "subtract", "amount": 3}}\n</tool_call>'
    tools: Any = [openai.pydantic_function_tool(Step)]
    chats: Any = client.chat.completions if hasattr(client.chat.completions, "parse") else client.beta.chat.completions
    answer = chats.parse(model=MODEL, messages=ask(f"[[say: {call}]]"), tools=tools)
    [made] = answer.choices[0].message.tool_calls
    assert made.function.parsed_arguments == Step(kind="subtract", amount=3)
    with chats.stream(model=MODEL, messages=ask(f"[[say: {call}]]"), tools=tools) as response:
        kinds = [event.type for event in response]
        [made] = response.get_final_completion().choices[0].message.tool_calls
    assert made.function.parsed_arguments == Step(kind="subtract", amount=3)
    assert kinds.count("tool_calls.function.arguments.delta") > 5
    assert "tool_calls.function.arguments.done" in kinds


def bad_requests(client: OpenAI) -> None:
    cases: list[tuple[dict[str, Any], str | None, str]] = [
        ({"n": 0}, "n", "invalid_request"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_request"),
        ({"messages": ask("x" * 20_000)}, "messages", "context_length_exceeded"),
    ]
    for fields, param, code in cases:
        body: Any = {"model": MODEL, "messages": HELLO} | fields
        error = expect(openai.BadRequestError, partial(client.chat.completions.create, **body))
        assert (error.param, error.code) == (param, code), (error.param, error.code)


def unknown_things(client: OpenAI) -> None:
    error = expect(openai.NotFoundError, lambda: client.get("/nothing", cast_to=object))
    assert error.status_code == 404


def timeouts(client: OpenAI) -> None:
    impatient = client.with_options(timeout=0.5, max_retries=0)
    expect(openai.APITimeoutError, lambda: impatient.chat.completions.create(model=MODEL, messages=SLOW))


def asynchronous(client: OpenAI) -> None:
    asyncio.run(_asynchronous(str(client.base_url)))


async def _asynchronous(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key="sk-none") as client:
        calls = [client.chat.completions.create(model=MODEL, messages=ask(f"[[say: {n}]]")) for n in range(4)]
        answers = await asyncio.gather(*calls)
        assert [answer.choices[0].message.content for answer in answers] == ["0", "1", "2", "3"]
        pieces = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        assert "".join([piece.choices[0].delta.content or "" async for piece in pieces]) == "Hello there"
        assert [model.id async for model in client.models.list()]


def too_many(client: OpenAI) -> None:
    """The service of these calls lets a caller have eight answers at a time."""
    once = client.with_options(max_retries=0)
    running = [once.chat.completions.create(model=MODEL, messages=SLOW, stream=True) for _ in range(8)]
    try:
        error = expect(openai.RateLimitError, lambda: once.chat.completions.create(model=MODEL, messages=HELLO))
        assert error.code == "rate_limit_exceeded"
        assert int(error.response.headers["retry-after"]) >= 1
    finally:
        for response in running:
            response.close()


def responses(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=SAY, instructions="Be brief.", metadata={"run": "1"})
    assert (response.output_text, response.status, response.error) == ("Hello there", "completed", None)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    again = client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    items: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": SAY}]
    assert client.responses.create(model=MODEL, input=items, store=False).output_text == "Hello there"


def response_events(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input=SAY, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello there"
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello there"
    with client.responses.stream(model=MODEL, input=SAY) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == snapshots[-1] == "Hello there"


def response_in_background(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="[[delay: 20]] [[count: 40]]", background=True)
    assert response.status in ("queued", "in_progress")
    with client.responses.retrieve(response.id, stream=True) as stream:
        events = [event for event, _ in zip(stream, range(20), strict=False)]
    for after in (3, events[-1].sequence_number):
        rest = list(client.responses.retrieve(response.id, stream=True, starting_after=after))
        numbers = [event.sequence_number for event in rest]
        assert numbers == list(range(after + 1, after + 1 + len(rest)))
        assert rest[-1].type == "response.completed"
    assert client.responses.retrieve(response.id).output_text.split() == [str(number) for number in range(1, 41)]


def response_chain(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=SAY)
    cached = []
    for number in range(20):
        response = client.responses.create(
            model=MODEL, input=f"[[say: {number}]]", previous_response_id=response.id, truncation="auto"
        )
        assert response.output_text == str(number)
        assert response.usage is not None
        cached.append(response.usage.input_tokens_details.cached_tokens)
    assert cached == sorted(set(cached)), cached
    items = list(client.responses.input_items.list(response.id, limit=10, order="asc"))
    assert len(items) == 41
    assert items[0].type == "message"


def response_that_is_cancelled_and_deleted(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=SLOW_TEXT, background=True)
    error = expect(
        openai.ConflictError,
        lambda: client.with_options(max_retries=0).responses.create(
            model=MODEL, input=SAY, previous_response_id=response.id
        ),
    )
    assert error.code == "conversation_busy"
    assert client.responses.cancel(response.id).status == "cancelled"
    client.responses.delete(response.id)
    for call in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        expect(openai.NotFoundError, partial(call, response.id))


def response_of_a_schema(client: OpenAI) -> None:
    response = client.responses.parse(model=MODEL, input="no JSON", text_format=Trip)
    assert isinstance(response.output_parsed, Trip)


def response_that_calls(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": Trip.model_json_schema(), "strict": True}]
    first = client.responses.create(model=MODEL, input="Will it rain?", tools=tools, tool_choice="required")
    [call] = [item for item in first.output if item.type == "function_call"]
    assert Trip.model_validate_json(call.arguments)
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": SAY}]
    second = client.responses.create(model=MODEL, input=output, tools=tools, previous_response_id=first.id)
    assert second.output_text == "Hello there"


def bad_responses(client: OpenAI) -> None:
    for fields, param in (({"max_output_tokens": 0}, "max_output_tokens"), ({"input": []}, "input")):
        body: Any = {"model": MODEL, "input": SAY} | fields
        error = expect(openai.BadRequestError, partial(client.responses.create, **body))
        assert error.param == param, error.param


def expect(kind: type[Any], call: Callable[[], object]) -> Any:  # noqa: ANN401  one of the package's errors
    """Return the error of this class that the call ends with."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


# The one that leaves eight answers behind comes last.
CALLS: tuple[Callable[[OpenAI], None], ...] = (
    chat,
    chat_with_parts_and_choices,
    stream,
    stream_that_is_left,
    stream_helper,
    extensions,
    completions,
    models,
    embeddings,
    raw_response,
    structured_answer,
    parsed_answer,
    tool_calls,
    parsed_tool_calls,
    bad_requests,
    unknown_things,
    timeouts,
    asynchronous,
    responses,
    response_events,
    response_in_background,
    response_chain,
    response_that_is_cancelled_and_deleted,
    response_of_a_schema,
    response_that_calls,
    bad_responses,
    too_many,
)


def main(url: str) -> int:
    failures = 0
    with OpenAI(base_url=f"{url}/v1", api_key="sk-none", timeout=60) as client:
        for call in CALLS:
            try:
                call(client)
            except Exception:  # noqa: BLE001  a failing call is reported, and the others run
                failures += 1
                traceback.print_exc()
    sys.stdout.write(f"openai {openai.__version__}: {len(CALLS) - failures} of {len(CALLS)} calls passed\n")
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
