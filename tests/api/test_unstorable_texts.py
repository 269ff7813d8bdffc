"""Texts that no database stores, NUL and half a surrogate pair, wherever a client can write a text: never a 5xx.

The bodies are walked from the OpenAPI document: each place of each body once with each text, in a body that is right
otherwise. So are queries, paths and headers.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.db import connection

from chat.api.openapi.component_schemas import component_schemas
from chat.api.openapi.operation import Operation
from chat.api.openapi.operations import OPERATIONS
from gemma_project.asgi import application
from inference.gpu.coordinator import api
from inference.runtime.redis_client import gpu_client
from tests.faults.conftest import IS_WHOLE_RUN
from tests.faults.fuzzing import JSON_HEADER, NOBODY, ROUTES, Answer, Route, Shot, Socket, send
from tests.faults.test_requests import REFUSALS, Run, run  # noqa: F401  the fixture

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases,
    pytest.mark.skipif(connection.vendor == "sqlite" and not IS_WHOLE_RUN, reason="SQLite stores more than others"),
]

Json = dict[str, Any]
TEXTS = ("a\0b", "a\ud800b")
IN_ADDRESSES = ("%00", "a%00b", "%ED%A0%80", "%FF")
MAX_DEPTH = 6
# One of so many is sent in a quick run, which `make test` does on PostgreSQL alone; all in `make faults`.
SHARE = 9
COMPONENTS: Json = component_schemas()


def resolved(schema: Json) -> Json:
    while "$ref" in schema:
        schema = COMPONENTS[schema["$ref"].rpartition("/")[2]]
    return schema


def smallest(schema: Json) -> Any:  # noqa: ANN401
    """Return a value that the schema allows, with as little in it as possible."""
    schema = resolved(schema)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if choice.get("type") != "null":
            return smallest(choice)
    match schema.get("type"):
        case "object":
            return {name: smallest(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [smallest(schema["items"])] if schema.get("minItems") else []
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return False
        case _:
            return "x"


def spoilt(schema: Json, text: str, depth: int = 0) -> Iterator[Any]:
    """Yield values of the schema that hold ``text`` in one place each, as a value or as a name."""
    schema = resolved(schema)
    if depth > MAX_DEPTH:
        return
    choices = (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
    for choice in choices:
        yield from spoilt(choice, text, depth)
    match schema.get("type"):
        case "object":
            least = smallest(schema)
            for name, member in schema.get("properties", {}).items():
                for value in spoilt(member, text, depth + 1):
                    yield {**least, name: value}
            yield {**least, text: 1}
            more = schema.get("additionalProperties")
            if isinstance(more, dict):
                yield from ({**least, "k": value} for value in spoilt(more, text, depth + 1))
        case "array":
            yield from ([value] for value in spoilt(schema.get("items", {}), text, depth + 1))
        case "integer" | "number" | "boolean" | "null":
            return
        case "string":
            yield text
        case None if not choices and "const" not in schema:
            yield from (text, {"k": text}, {text: "v"}, [text], {"k": [{"k": text}]})


def bodies_of(operation: Operation, good: Json) -> Iterator[Json]:
    if operation.body is None:
        return
    for text in TEXTS:
        for body in spoilt(COMPONENTS[operation.body.__name__], text):
            yield {**good, **body}
            # Without what is required beside it, which the right body has in another form.
            yield {**good, **{name: value for name, value in body.items() if name not in good}}


GOOD_FIELDS = {route.name: route.fields for route in ROUTES if route.method == "GET"}
RIGHT = {(route.name, route.method): route.good for route in ROUTES}


def assert_refused_or_taken(operation: Operation, answer: Answer, sent: object) -> None:
    is_expected = answer.status < 500 or answer.status == REFUSALS.get(operation.name)
    assert is_expected, (operation.method, operation.path, sent, answer)


def shot_of(operation: Operation, path: str, body: bytes = b"", **headers: bytes) -> Shot:
    method = operation.method.upper()
    route = Route(operation.name, method, path)
    more = tuple((name.replace("_", "-").encode(), value) for name, value in headers.items())
    return Shot(route, method, path, body, headers=(JSON_HEADER, *more))


def filled(path: str, value: str = NOBODY) -> str:
    head, found, rest = path.partition("{")
    return head + value + filled(rest.partition("}")[2], value) if found else head


def release() -> None:
    api.reset(gpu_client())  # the next acquisition would wait for the lease of this one


EACH = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.path}")


@EACH
def test_bodies(operation: Operation, run: Run) -> None:  # noqa: F811
    good = dict(RIGHT.get((operation.name, operation.method.upper()), {}))
    bodies = list(dict.fromkeys(json.dumps(body) for body in bodies_of(operation, good)))
    for raw in bodies if IS_WHOLE_RUN else bodies[::SHARE]:
        answer = run(send(shot_of(operation, filled(operation.path), raw.encode())))
        assert_refused_or_taken(operation, answer, raw)
        if operation.path.startswith(("/gpu", "/gemma")):
            release()


HEADERS = ["last-event-id", "idempotency-key", "x-request-id", "x-service-token", "x-api-key", "authorization"]
HEADERS += ["origin", "accept-language", "user-agent", "x-forwarded-for", "content-type", "accept", "if-none-match"]
ODD_VALUES = (b"a\x01b", b"\xed\xa0\x80", b"\xff", b"Bearer gemma-\xed\xa0\x80", b"Bearer \xff.\xff.\xff", b"%00")
COOKIES = (b'sessionid="a\\000b"', b"sessionid=\xed\xa0\x80", b'csrftoken="\\000"', b"sessionid=%00")


@EACH
def test_addresses_and_headers(operation: Operation, run: Run) -> None:  # noqa: F811
    good = json.dumps(RIGHT.get((operation.name, operation.method.upper()), {})).encode()
    path, body = filled(operation.path), good if operation.body is not None else b""
    names = {parameter.name for parameter in operation.parameters if parameter.where == "query"} | {"search", "x"}
    names |= set(GOOD_FIELDS.get(operation.name, ()))
    queries = [f"{name}={text}" for name in sorted(names) for text in IN_ADDRESSES] + [f"{IN_ADDRESSES[0]}=1"]
    shots = [shot_of(operation, f"{path}?{query}", body) for query in queries]
    if "{" in operation.path:
        shots += [shot_of(operation, filled(operation.path, text), body) for text in IN_ADDRESSES]
    shots += [shot_of(operation, path, body, **{name: value}) for name in HEADERS for value in ODD_VALUES]
    shots += [shot_of(operation, path, body, cookie=value) for value in COOKIES]
    for shot in shots if IS_WHOLE_RUN else shots[:: 4 * SHARE + 1]:
        assert_refused_or_taken(operation, run(send(shot)), shot)
        if operation.path.startswith(("/gpu", "/gemma")):
            release()


@pytest.mark.parametrize("cookie", COOKIES)
def test_cookies_of_a_socket(cookie: bytes, run: Run) -> None:  # noqa: F811
    async def connect() -> None:
        headers = [(b"host", b"testserver"), (b"origin", b"http://testserver"), (b"cookie", cookie)]
        communicator = WebsocketCommunicator(application, "/ws/chat", headers=headers)
        communicator.scope["client"] = ["127.0.0.1", 1]
        is_open, _ = await communicator.connect(timeout=30)
        assert is_open, "the session is none, and the caller is who is on this machine"
        await communicator.disconnect()

    run(connect())


FRAMES = {"chat": ("ChatFrame", {"messages": [{"role": "user", "content": "Hello"}], "store": False})}
FRAMES |= {"resume": ("ResumeFrame", {"generation_id": NOBODY}), "cancel": ("CancelFrame", {"generation_id": NOBODY})}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames(kind: str, run: Run) -> None:  # noqa: F811
    name, good = FRAMES[kind]
    frames = [json.dumps({**good, **body, "type": kind}) for text in TEXTS for body in spoilt(COMPONENTS[name], text)]

    async def exchange() -> None:
        socket = Socket()
        await socket.open()
        for frame in frames if IS_WHOLE_RUN else frames[::SHARE]:
            line = await socket.ask(frame)
            assert line.get("error", {}).get("code") != "internal_error", frame
        await socket.close()

    run(exchange())
