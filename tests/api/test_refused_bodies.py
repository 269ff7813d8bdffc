"""Wrong and harmful bodies of clients of OpenAI and Anthropic, sent to a running service.

Each is refused with the path of its field by every interface that takes it, and the service goes on.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.live import make_users
from tests.live_stack import LiveStack

Json = dict[str, Any]
USER = {"role": "user", "content": "[[say: ok]]"}
CHAT: Json = {"messages": [USER]}
RESPONSE: Json = {"input": "[[say: ok]]"}
MESSAGE: Json = {"model": "fake-it", "messages": [USER], "max_tokens": 5}
TEXT: Json = {"prompt": "x"}
PATHS = {
    "chat": ("/v1/chat/completions", CHAT),
    "text": ("/v1/completions", TEXT),
    "response": ("/v1/responses", RESPONSE),
    "message": ("/v1/messages", MESSAGE),
    "count": ("/v1/messages/count_tokens", {"model": "fake-it", "messages": [USER]}),
    "template": ("/apply-template", CHAT),
    "embedding": ("/v1/embeddings", {"input": "x"}),
}
CONVERSING = ("chat", "response", "message")


@pytest.fixture
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        yield client


def error_of(client: httpx.Client, name: str, fields: Json, status: int = 400) -> Json:
    path, body = PATHS[name]
    answer = client.post(path, json=body | fields)
    error: Json = answer.json()["error"]
    assert answer.status_code == status, error
    assert error["message"]
    return error


def refused(client: httpx.Client, name: str, fields: Json, status: int, field: str | None, code: str = "") -> Json:
    error = error_of(client, name, fields, status)
    assert error["param"] == field, error
    assert code in ("", error["code"])
    return error


@pytest.mark.parametrize("name", ["chat", "text", "response", "message", "count", "embedding"])
def test_an_unknown_model(name: str, client: httpx.Client) -> None:
    refused(client, name, {"model": "gpt-4o"}, 404, "model", "model_not_found")


@pytest.mark.parametrize("n", [0, 1000, -1, 10**30, "2", True])
def test_a_number_of_choices(n: object, client: httpx.Client) -> None:
    for name in ("chat", "text"):
        refused(client, name, {"n": n}, 400, "n")


def tools_of(name: str, names: list[str], schema: Json, **more: object) -> Json:
    if name == "chat":
        return {"tools": [{"type": "function", "function": {"name": n, "parameters": schema} | more} for n in names]}
    if name == "response":
        return {"tools": [{"type": "function", "name": n, "parameters": schema} | more for n in names]}
    return {"tools": [{"name": n, "input_schema": schema} | more for n in names]}


def test_a_name_of_two_tools(client: httpx.Client) -> None:
    names = [f"f{number}" for number in range(127)]
    for name, field in zip(CONVERSING, ("tools[127].function.name", "tools[127].name", "tools[127].name"), strict=True):
        error = refused(client, name, tools_of(name, [*names, "f5"], {"type": "object"}), 400, field)
        assert "tools[5]" in error["message"]


def chain(n: int) -> Json:
    definitions: Json = {f"a{i}": {"items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(n)}
    return {"type": "object", "properties": {"p": {"$ref": "#/$defs/a0"}}, "$defs": definitions | {f"a{n}": {}}}


def nested(n: int) -> Json:
    return {"type": "object", "properties": {"a": nested(n - 1)}} if n else {}


SCHEMAS: dict[str, tuple[Json, str]] = {
    "of 1 MB": ({"type": "object", "description": "x" * 1_000_000}, ""),
    "of 60,000 values": ({"type": "object", "enum": [f"{n:010}" for n in range(60_000)]}, ""),
    "of itself": ({"type": "object", "$ref": "#"}, ""),
    "of 100 levels": (nested(100), ""),
    "of 1,400 references": (chain(1400), ""),
    "invalid": ({"type": "object", "properties": [1]}, ""),
    "invalid within": ({"type": "object", "properties": {"a": {"type": "nothing"}}}, ".properties.a"),
    "remote": ({"type": "object", "$ref": "https://example.org/schema.json"}, ""),
    "remote within": ({"type": "object", "properties": {"a": {"$ref": "https://example.org/x"}}}, ".properties.a"),
    "a file": ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, ".properties.a"),
    "elsewhere": ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, ".properties.a"),
    "impossible": ({"type": "object", "required": ["a"], "properties": {"a": False}}, ".properties.a"),
    "an expression": ({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}, ".properties.a"),
}


def form_of(name: str, schema: Json) -> tuple[Json, str]:
    """The fields that bind an answer to a schema, and the path of the schema."""
    if name == "chat":
        named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        return {"response_format": named}, "response_format.json_schema.schema"
    if name == "response":
        return {"text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}, "text.format.schema"
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}, "output_config.format.schema"


@pytest.mark.parametrize(("schema", "part"), SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema(schema: Json, part: str, client: httpx.Client) -> None:
    for name in CONVERSING:
        form, path = form_of(name, schema)
        tools = tools_of(name, ["f"], schema, strict=True)
        for fields, start in ((form, path), (tools, "tools")):
            error = error_of(client, name, fields)
            assert error["param"].startswith(start)
            assert part in error["param"]


@pytest.mark.parametrize("regex", ["a?" * 30_000, "(" * 3000, "(a)\\1", "(?=a)b", "", 5, "[^", "x" * 70_000])
def test_an_expression(regex: object, client: httpx.Client) -> None:
    for name in ("chat", "text"):
        fields = {"response_format": {"type": "regex", "regex": regex}, "max_tokens": 5}
        refused(client, name, fields, 400, "response_format.regex")


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*b", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_an_expression_that_is_slow_elsewhere(regex: str, client: httpx.Client) -> None:
    fields = {"response_format": {"type": "regex", "regex": regex}, "max_tokens": 5}
    assert client.post("/v1/chat/completions", json=CHAT | fields).status_code == 200


def test_a_hundred_thousand_biases(client: httpx.Client) -> None:
    bias = {str(token): 1 for token in range(100_000)}
    for name in ("chat", "text", "response", "message"):
        for some in (bias, {"999999999": 1}, {"-1": 1}, {"5.0": 1}):
            refused(client, name, {"logit_bias": some}, 400, "logit_bias")


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("chat", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ("chat", {"messages": [{"role": "user", "content": [IMAGE]}], "stream": True}, "messages[0].content[0].type"),
        ("chat", {"messages": [{"role": "system", "content": [IMAGE]}, USER]}, "messages[0].content[0].type"),
        (
            "chat",
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "c", "content": [IMAGE]},
                ]
            },
            "messages[2].content[0].type",
        ),
        ("template", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        (
            "response",
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/x.png"}]}
                ]
            },
            "input[0].content[0].type",
        ),
        (
            "response",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content[0].type",
        ),
        (
            "message",
            {"messages": [{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]},
            "messages[0].content[0].type",
        ),
        (
            "message",
            {"messages": [{"role": "user", "content": [{"type": "document", "source": SOURCE}]}]},
            "messages[0].content[0].source.type",
        ),
        (
            "message",
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "c",
                                "content": [{"type": "image", "source": SOURCE}],
                            }
                        ],
                    },
                ]
            },
            "messages[2].content[0].content[0].type",
        ),
        (
            "count",
            {"messages": [{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_images(name: str, fields: Json, field: str, client: httpx.Client) -> None:
    error = refused(client, name, fields, 400, field, "unsupported")
    assert "text only" in error["message"]


def test_results_without_a_call(client: httpx.Client) -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": "1"}
    for messages in ([result], [USER, result], [USER, {"role": "assistant", "tool_calls": [CALL]}, USER, result]):
        refused(client, "chat", {"messages": messages}, 400, f"messages[{len(messages) - 1}].tool_call_id")
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    refused(client, "response", {"input": [output]}, 400, "input[0].call_id")
    block = {"type": "tool_result", "tool_use_id": "c", "content": "1"}
    refused(
        client,
        "message",
        {"messages": [{"role": "user", "content": [block]}]},
        400,
        "messages[0].content[0].tool_use_id",
    )


def test_a_response_of_another_user(client: httpx.Client, fake_stack: LiveStack) -> None:
    [zoe] = make_users(fake_stack, "zoe")
    response_id = client.post("/v1/responses", json=RESPONSE, headers=zoe.headers).json()["id"]
    for fields in ({}, {"store": False}, {"background": True}, {"stream": True}):
        fields |= {"previous_response_id": response_id}
        refused(client, "response", fields, 404, "previous_response_id", "not_found")
    own = client.post("/v1/responses", json=RESPONSE | {"previous_response_id": response_id}, headers=zoe.headers)
    assert own.status_code == 200


def test_a_response_that_runs(client: httpx.Client) -> None:
    slow = {"input": "[[delay: 20]] [[count: 2000]]", "background": True}
    response_id = client.post("/v1/responses", json=slow).json()["id"]
    for fields in ({}, {"store": False}, {"background": True, "stream": True}):
        fields |= {"previous_response_id": response_id}
        refused(client, "response", fields, 409, "previous_response_id", "conversation_busy")
    assert client.delete(f"/v1/responses/{response_id}").json()["deleted"] is True
    for path in ("", "?stream=true", "?stream=true&starting_after=3", "/input_items"):
        assert client.get(f"/v1/responses/{response_id}{path}").status_code == 404
    refused(client, "response", {"previous_response_id": response_id}, 404, "previous_response_id")


def test_the_service_goes_on(client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "healthy"
    for name in CONVERSING:
        path, body = PATHS[name]
        assert client.post(path, json=body).status_code == 200
