"""Unforeseen errors: always the one JSON object, never a page, and no internal details."""

import json

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import (
    DisallowedHost,
    ImproperlyConfigured,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import OperationalError
from django.http import Http404
from django.test import Client
from pytest_django import Settings
from rest_framework import exceptions as drf

from chat import errors
from chat.access.callers import Caller
from chat.api import chat_views
from chat.api.openapi.document import document
from chat.errors import ChatError, ContextOverflow, NotFound, TooManyRequests, Unavailable
from chat.schemas.error_bodies import as_chat_error, error_object, headers_of
from chat.services import conversations
from inference import errors as inference
from inference.models import Generation
from tests.api.calling import Api

SECRET = "password=hunter2 at /secret/path"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("x"), 404, "not_found"),
        (TooManyRequests("x"), 429, "caller_limit"),
        (Http404(SECRET), 404, "not_found"),
        (Generation.DoesNotExist(SECRET), 404, "not_found"),
        (PermissionDenied(SECRET), 403, "forbidden"),
        (RequestDataTooBig(SECRET), 413, "body_too_large"),
        (DisallowedHost(SECRET), 400, "invalid_host"),
        (SuspiciousOperation(SECRET), 400, "invalid_request"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (drf.NotAuthenticated(), 401, "not_authenticated"),
        (drf.AuthenticationFailed(), 401, "not_authenticated"),
        (drf.PermissionDenied(), 403, "forbidden"),
        (drf.Throttled(7), 429, "caller_limit"),
        (drf.APIException(SECRET), 500, "internal_error"),
        (drf.ValidationError(SECRET), 400, "invalid_request"),
        (OperationalError(SECRET), 503, "store_unavailable"),
        (inference.StoreUnavailable(SECRET), 503, "store_unavailable"),
        (inference.ModelUnavailable(SECRET), 503, "model_unavailable"),
        (inference.QueueFull(9, 3), 503, "queue_full"),
        (inference.CallerLimit(9, 3), 429, "caller_limit"),
        (ImproperlyConfigured(SECRET), 500, "internal_error"),
        (ZeroDivisionError(SECRET), 500, "internal_error"),
        (RecursionError(SECRET), 500, "internal_error"),
    ],
)
def test_what_is_told_of_each_error(error: Exception, status: int, code: str) -> None:
    shown_error = as_chat_error(error)
    assert (shown_error.status, shown_error.code) == (status, code)
    assert "hunter2" not in json.dumps(error_object(shown_error))


def test_the_object_has_what_is_known() -> None:
    shown_error = error_object(ContextOverflow(prompt_tokens=9, context_size=8))
    assert shown_error == {
        "code": "context_overflow",
        "message": "the prompt has 9 tokens, the context 8",
        "field": "messages",
        "prompt_tokens": 9,
        "context_size": 8,
    }


def test_headers() -> None:
    assert headers_of(Unavailable("x", retry_after_secs=0)) == {"Retry-After": "1"}
    # Both statuses ask for another attempt, whichever part has refused.
    for error in (Unavailable("x"), TooManyRequests("x", code="conversation_limit"), Unavailable("x", code="y")):
        assert headers_of(error) == {"Retry-After": "5"}
    assert headers_of(errors.InvalidRequest("x")) == {}
    assert headers_of(errors.Unauthorized("x"))["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("is_debugging", [False, True])
class TestOverHttp:
    """The same with DEBUG, when Django's own pages would show the settings."""

    @pytest.fixture(autouse=True)
    def _debugging(self, is_debugging: bool, settings: Settings) -> None:
        settings.DEBUG = is_debugging

    @pytest.mark.parametrize("path", ["/nothing", "/api/", "/api/nothing/", "/chat/stream/a/b", "/favicon.png", "/%ff"])
    def test_no_such_path(self, path: str) -> None:
        assert Api().get(path).outcome == (404, "not_found")

    @pytest.mark.parametrize("path", ["/", "/health"])
    def test_no_such_method(self, path: str) -> None:
        answer = Api().post(path, {})
        assert answer.outcome == (405, "method_not_allowed")
        assert "GET" in answer.headers["Allow"]

    @pytest.mark.django_db
    def test_no_such_method_of_drf(self) -> None:
        answer = Api().call("PUT", "/api/conversations/", {})
        assert answer.outcome == (405, "method_not_allowed")
        assert answer.headers["Allow"]
        assert Api().get("/api/token/").outcome == (405, "method_not_allowed")

    @pytest.mark.django_db
    def test_a_bug_in_a_view_of_drf(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def bug(caller: Caller) -> None:
            raise ZeroDivisionError(SECRET)

        monkeypatch.setattr(conversations, "conversations_of", bug)
        answer = Api().get("/api/conversations/")
        assert answer.outcome == (500, "internal_error")
        assert "hunter2" not in str(answer.body)

    @pytest.mark.django_db(transaction=True)
    def test_a_bug_in_an_asynchronous_view(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def bug(*args: object, **options: object) -> None:
            raise ZeroDivisionError(SECRET)

        monkeypatch.setattr(chat_views, "ask_chat", bug)
        for path in ("/chat", "/chat/stream"):
            answer = Api().post(path, {})
            assert answer.outcome == (500, "internal_error")
            assert "hunter2" not in str(answer.body)

    @pytest.mark.django_db(transaction=True)
    def test_a_refusal_with_the_time_to_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def full(*args: object, **options: object) -> None:
            raise Unavailable("full", code="queue_full", retry_after_secs=12)

        monkeypatch.setattr(chat_views, "ask_chat", full)
        answer = Api().post("/chat", {})
        assert answer.outcome == (503, "queue_full")
        assert answer.headers["Retry-After"] == "12"

    def test_a_body_that_is_announced_too_large(self) -> None:
        answer = Api().call("POST", "/api/token/", b"x" * 1_048_577)
        assert answer.outcome == (413, "body_too_large")
        assert answer.body["error"]["max_bytes"] == 1_048_576

    def test_another_host(self) -> None:
        assert Api().get("/", {"Host": "evil.example"}).outcome == (400, "invalid_host")


@pytest.mark.django_db
class TestTheAdminKeepsItsPages:
    def test_not_found(self) -> None:
        client = Client()
        client.force_login(User.objects.create_superuser("root"))
        response = client.get("/admin/nothing/here/")
        assert response.status_code == 404
        assert response["Content-Type"].startswith("text/html")

    def test_login(self) -> None:
        response = Client().get("/admin/", follow=True)
        assert response.status_code == 200
        assert response["Content-Type"].startswith("text/html")

    def test_a_login_without_csrf_token_is_refused(self) -> None:
        response = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x", "password": "y"})
        assert response.status_code == 403
        assert response["Content-Type"].startswith("text/html")


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases
@pytest.mark.parametrize("path", ["/transcript/%00", "/memory/a%00b", "/gemma/release/%00", "/nothing/%00"])
def test_a_nul_in_a_path_names_nothing(path: str) -> None:
    """PostgreSQL would refuse the query."""
    for method in ("GET", "POST", "DELETE"):
        assert Api().call(method, path).outcome == (404, "not_found")


@pytest.mark.django_db(transaction=True)
@pytest.mark.databases
def test_a_nul_in_a_cookie_is_no_session() -> None:
    answer = Api().get("/memory/list", {"Cookie": 'sessionid="aaaaaaaa\\000"'})
    assert answer.outcome == (400, "invalid_request")


@pytest.mark.parametrize("length", ["\N{SUPERSCRIPT TWO}", "-1", "1_0", "9" * 5000])
def test_a_length_that_is_none(length: str) -> None:
    response = Client().post("/chat", b"{}", content_type="application/json", CONTENT_LENGTH=length)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")


def test_the_root_lists_every_documented_endpoint() -> None:
    answer = Api("203.0.113.7").get("/")
    assert answer.status == 200
    endpoints = answer.body["endpoints"]
    documented = {f"{method.upper()} {path}" for path, item in document()["paths"].items() for method in item}
    assert documented < set(endpoints)
    assert {"POST /chat", "WS /ws/chat"} <= set(endpoints)
    assert all(endpoints.values())


def test_every_class_of_this_room_has_a_code_of_its_own() -> None:
    kinds: list[type[ChatError]] = [
        errors.InvalidJson,
        errors.InvalidEncoding,
        errors.Unauthorized,
        errors.Forbidden,
    ]
    kinds += [errors.MethodNotAllowed, errors.BodyTooLarge, errors.UnsupportedMediaType]
    assert len({kind.code for kind in kinds}) == len(kinds)
