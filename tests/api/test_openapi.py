"""The OpenAPI document: valid, complete, and matched by the service's answers; and its page."""

import json
import re
from typing import Any

import msgspec
import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from openapi_spec_validator import validate

from chat.api.openapi.document import document
from chat.api.openapi.operations import OPERATIONS
from chat.api.openapi.views import type_text
from chat.errors import InvalidRequest
from chat.schemas.answer_types import ErrorAnswer
from chat.schemas.chat_bodies import ChatBody
from chat.schemas.decoding import decode
from chat.schemas.requests import ChatRequest
from chat.schemas.stream_types import TokenLine
from inference.enums import StreamState
from tests.api.calling import Api

pytestmark = pytest.mark.django_db

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ID = "6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"


def served_patterns(patterns: list[URLPattern | URLResolver]) -> list[URLPattern]:
    """All patterns but those of pages."""
    served: list[URLPattern] = []
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            served.append(pattern)
        elif pattern.app_name not in ("admin", "pages"):
            served += served_patterns(pattern.url_patterns)
    return served


def named(name: str) -> type[msgspec.Struct]:
    """The struct behind a type of the document."""
    kinds = {kind.__name__: kind for one in OPERATIONS for kind in (one.answer, one.body) if kind is not None}
    return (kinds | {"ErrorAnswer": ErrorAnswer, "TokenLine": TokenLine})[name]


def is_valid(name: str, value: object) -> bool:
    assert name in document()["components"]["schemas"]
    try:
        decode(named(name), value)
    except InvalidRequest:
        return False
    return True


def test_the_document_is_valid() -> None:
    validate(document())
    json.dumps(document(), ensure_ascii=False, allow_nan=False).encode()


def test_it_is_served_to_everybody() -> None:
    answer = Api("203.0.113.7").get("/api/schema/")
    assert (answer.status, answer.body) == (200, document())


def test_no_route_is_left_out() -> None:
    assert {str(pattern.name) for pattern in served_patterns(get_resolver().url_patterns)} == {
        operation.name for operation in OPERATIONS
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
def test_no_method_is_left_out_and_none_made_up(path: str) -> None:
    described = {operation.method.upper() for operation in OPERATIONS if operation.path == path}
    concrete = re.sub(r"{\w+}", ID, path)
    client = Api().client
    statuses = {method: client.generic(method, concrete, "{}", "application/json").status_code for method in METHODS}
    assert {method for method, status in statuses.items() if status != 405} == described


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for path in document()["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)


def test_defaults_are_those_of_the_requests() -> None:
    fields = document()["components"]["schemas"]["ChatBody"]["properties"]
    request = ChatRequest()
    assert (fields["max_tokens"]["default"], fields["temperature"]["default"]) == (512, 0.7)
    assert {name: field["default"] for name, field in fields.items() if "default" in field} == {
        name: getattr(request, name) for name, field in fields.items() if "default" in field
    }
    assert set(fields) == set(ChatBody.__struct_fields__)


@pytest.mark.parametrize("name", ["ChatCompletionBody", "OpenAICompletionBody"])
def test_openai_has_defaults_of_its_own(name: str) -> None:
    fields = document()["components"]["schemas"][name]["properties"]
    assert "default" not in fields["max_tokens"]
    assert (fields["n"]["default"], fields["temperature"]["default"]) == (1, 0.7)


def test_states_are_those_of_the_streams() -> None:
    assert set(document()["components"]["schemas"]["StreamState"]["enum"]) == {state.value for state in StreamState}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ChatBody", {"messages": [{"role": "user", "content": "Hello 😀"}], "max_tokens": 5.0, "model": "gpt"}),
        ("ChatBody", {"message": "Hello", "stop": "\n", "temperature": None, "conversation_id": ""}),
        (
            "ChatBody",
            {"messages": [{"role": "tool", "content": [{"type": "text", "text": "x"}]}], "logit_bias": {"5": 1}},
        ),
        ("TranscriptBody", {"job_id": "j", "segments": [{"text": "a", "start_time": 1}]}),
        ("ErrorAnswer", {"error": {"code": "context_overflow", "message": "m", "prompt_tokens": 1, "context_size": 2}}),
        ("TokenLine", {"id": 1, "token": "a", "done": False}),
        (
            "TokenLine",
            {"id": 1, "token": "", "done": False, "status": {"state": "queued", "position": 2, "wait_s": 1.5}},
        ),
    ],
)
def test_types_take_what_the_service_takes(name: str, value: dict[str, Any]) -> None:
    assert is_valid(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ChatBody", {"max_tokens": "5"}),
        ("ChatBody", {"max_tokens": -2}),
        ("ChatBody", {"messages": []}),
        ("ChatBody", {"messages": [{"role": "robot", "content": "x"}]}),
        ("ChatBody", {"store": 1}),
        ("ChatBody", {"session_id": "a\0"}),
        ("TokenLine", {"id": 1, "token": "", "done": False, "status": {"state": "generating"}}),
    ],
)
def test_types_refuse_what_the_service_refuses(name: str, value: dict[str, Any]) -> None:
    assert not is_valid(name, value)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("method", "path", "body", "name"),
    [
        ("GET", "/", None, "ServiceIndexAnswer"),
        ("GET", "/health", None, "HealthAnswer"),
        ("POST", "/api/conversations/", {"title": "t"}, "ConversationAnswer"),
        ("POST", "/memory/add", {"title": "t", "body": "b"}, "NoteIdAnswer"),
        ("POST", "/index/transcript", {"job_id": "j", "segments": [{"text": "Hello"}]}, "IndexAnswer"),
        ("GET", "/memory/stats", None, "StatsAnswer"),
        ("GET", "/memory/list", None, "NoteListAnswer"),
        ("GET", "/transcripts/recent", None, "TranscriptListAnswer"),
        ("GET", "/transcripts/speakers", None, "SpeakersAnswer"),
        ("POST", "/transcripts/count", {}, "CountAnswer"),
        ("POST", "/search/semantic", {"query": "Hello"}, "SearchAnswer"),
        ("POST", "/search", {"query": "Hello"}, "OldSearchAnswer"),
        ("POST", "/memory/search", {"query": "Hello"}, "NoteSearchAnswer"),
        ("GET", "/gpu/state", None, "GpuStateAnswer"),
        ("GET", "/status", None, "OldStatusAnswer"),
        ("POST", "/gpu/renew", {"session_id": "s"}, "RenewAnswer"),
        ("POST", "/chat", {"max_tokens": "5"}, "ErrorAnswer"),
        ("GET", "/nothing", None, "ErrorAnswer"),
        ("POST", "/gpu/acquire", {}, "ErrorAnswer"),
    ],
)
def test_answers_are_of_their_types(method: str, path: str, body: object, name: str) -> None:
    answer = Api().call(method, path, body).body
    assert is_valid(name, answer), answer


def test_the_page_names_all_and_requests_nothing() -> None:
    response = Api().client.get("/api/docs/")
    page = response.content.decode()
    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response["Content-Security-Policy"].startswith("default-src 'none'")
    assert not re.search(r"<(script|link|img|iframe)|https?://|@import|url\(", page)
    for operation in OPERATIONS:
        assert f'<span class="path">{operation.path}</span>' in page
    for name in document()["components"]["schemas"]:
        assert f'id="type-{name}"' in page


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5}, "integer (1..5)"),
        ({"anyOf": [{"$ref": "#/components/schemas/A"}, {"type": "null"}]}, "A or null"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 3}, "list of string (..3)"),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "number"}], "items": False},
            "list of integer, number",
        ),
        ({"enum": ["a", "b"]}, '"a" | "b"'),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({}, "any"),
    ],
)
def test_a_type_in_one_line(schema: dict[str, Any], text: str) -> None:
    assert type_text(schema) == text
