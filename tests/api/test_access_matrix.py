"""Every route with every kind of caller: who is let in, who is refused, and that a refusal changes nothing.

The routes are walked from the URL configuration. A new one needs its place in ROUTES_OF, else the first test fails.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, cast

import jwt
import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from pytest_django import Settings

from chat.access import scopes, tokens
from chat.access.api_keys import issue_key, revoke_key
from chat.access.tokens import OwnAccessToken
from chat.access.websocket_authentication import credentials_of
from chat.api.openapi.operations import OPERATIONS
from chat.api.websocket_routes import websocket_urlpatterns
from chat.enums import KeyScope
from chat.errors import ChatError
from chat.models import ApiKey, Conversation, Message
from chat.rag.indexing import indexer
from chat.rag.records import SegmentIn, TranscriptIn
from inference.auth import service_token
from inference.models import Generation, GpuLedger, Status
from tests.api.calling import JSON, Api
from tests.api.people import bearer, make_user, refresh_token
from tests.faults.fuzzing import NOBODY, ROUTES

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_broker")]

OUTSIDE, EVIL = "203.0.113.7", "https://evil.example"
SAFE = ("GET", "HEAD", "OPTIONS")

# Audience -> its routes.
ROUTES_OF: dict[str, frozenset[str]] = {
    "everybody": frozenset({"root", "health", "health-live", "health-ready", "schema", "docs"})
    | {"token", "token-refresh", "token-logout"},
    "users": frozenset({"api-key-list", "api-key-detail", "account", "account-export"}),
    "callers": scopes.CHAT_ROUTES | scopes.MEMORY_ROUTES | scopes.COMMON_ROUTES,
    "operators": scopes.OPERATOR_ROUTES - {"metrics"},
    "watchers": frozenset({"metrics"}),  # staff and this machine
}
# Routes whose path or body names an object of one owner: others are told that there is none.
OWNED = {
    "api-key-detail",
    "chat-resume",
    "conversation-detail",
    "conversation-export",
    "conversation-messages",
    "conversation-summaries",
    "conversation-versions",
    "generation-cancel",
    "memory-delete",
    "openai-response",
    "openai-response-cancel",
    "openai-response-items",
    "transcript",
}
GOOD_BODIES = {(route.name, route.method): dict(route.good) for route in ROUTES}


@dataclass(frozen=True)
class Row:
    """A method of a route: ``path`` leads to an object of Ann's, ``elsewhere`` to none."""

    name: str
    method: str
    path: str
    elsewhere: str
    audience: str

    @property
    def is_safe(self) -> bool:
        return self.method in SAFE


@dataclass(frozen=True)
class Visitor:
    """A kind of caller. ``expected`` returns the status of a refusal, None where the caller is let in."""

    expected: Callable[[Row], int | None]
    headers: Callable[[], dict[str, str]] = field(default=dict)
    address: str = "127.0.0.1"
    session_of: User | None = None


def served_names(routes: list[URLPattern | URLResolver]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, URLPattern):
            yield str(route.name)
        elif route.app_name not in ("admin", "pages"):
            yield from served_names(route.url_patterns)


def test_every_route_has_one_audience() -> None:
    names = set(served_names(get_resolver().url_patterns))
    names |= {str(pattern.name) for pattern in websocket_urlpatterns if pattern.name}
    placed = [name for routes in ROUTES_OF.values() for name in routes]
    assert sorted(placed) == sorted(names), "add a new route to its audience in ROUTES_OF and chat.access.scopes"
    assert names >= OWNED


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def rows(ann: User, settings: Settings, redis_client: "redis.Redis[str]") -> list[Row]:
    settings.JWT_SECRET = "an installation's key of more than 32 bytes"
    owner = f"user:{ann.pk}"
    conversation = Conversation.objects.create(owner=owner, title="Ann's")
    generation = Generation.objects.create(owner=owner, params={}, status=Status.COMPLETE, text="secret")
    Message.objects.create(conversation=conversation, position=0, role="user", content="secret")
    Message.objects.create(conversation=conversation, position=1, role="assistant", generation=generation)
    note = indexer.add_note(owner=owner, title="secret", body="secret")
    transcript = TranscriptIn(job_id="j", title="secret", segments=(SegmentIn(text="secret", start_secs=0.0),))
    indexer.index_transcript(owner=owner, transcript=transcript)
    ids = {
        "pk": str(conversation.pk),
        "generation_id": str(generation.pk),
        "memory_id": str(note.pk),
        "job_id": "j",
        "name": f"resp_{generation.pk.hex}",
        "task_id": "t",
    }
    key_ids = ids | {"pk": str(issue_key(ann, name="x").row.pk)}
    audiences = {name: audience for audience, names in ROUTES_OF.items() for name in names}
    return [
        Row(
            operation.name,
            operation.method.upper(),
            operation.path.format(**(key_ids if operation.name.startswith("api-key") else ids)),
            re.sub(r"{\w+}", NOBODY, operation.path),
            audiences[operation.name],
        )
        for operation in OPERATIONS
    ]


def nobody(row: Row) -> int | None:
    return None if row.audience == "everybody" else 401


def on_this_machine(row: Row) -> int | None:
    # A key of service tokens is set, so that nobody lends the GPU without credentials.
    return {"users": 403, "operators": 401}.get(row.audience)


def foreign_page(row: Row) -> int | None:
    return on_this_machine(row) if row.is_safe or row.audience == "everybody" else 403


def user(row: Row) -> int | None:
    return 403 if row.audience in ("operators", "watchers") else None


def session_without_csrf(row: Row) -> int | None:
    return user(row) if row.is_safe or row.audience == "everybody" else 403


def service(row: Row) -> int | None:
    return 403 if row.audience in ("users", "watchers") else None


def key_with(scope: KeyScope, *, staff: bool = False) -> Callable[[Row], int | None]:
    def expected(row: Row) -> int | None:
        if row.audience == "everybody":
            return None
        allowed = {
            KeyScope.CHAT: row.name in scopes.CHAT_ROUTES | scopes.COMMON_ROUTES,
            KeyScope.MEMORIES: row.name in scopes.MEMORY_ROUTES | scopes.COMMON_ROUTES,
            KeyScope.READ: row.audience == "callers" and (row.is_safe or row.name in scopes.READING_ROUTES),
            KeyScope.OPERATE: row.name in scopes.COMMON_ROUTES or (staff and row.audience in ("operators", "watchers")),
        }[scope]
        return None if allowed or (scope is KeyScope.READ and row.name in scopes.COMMON_ROUTES) else 403

    return expected


def access(person: User, **claims: object) -> str:
    """An access token of a new login; with other claims it is signed again."""
    pair = tokens.begin_family(person)
    if not claims:
        return pair.access
    known = jwt.decode(pair.access, options={"verify_signature": False})
    return str(_signed(known | claims))


def _signed(claims: dict[str, Any]) -> OwnAccessToken | str:
    backend = OwnAccessToken().get_token_backend()
    return jwt.encode(claims, backend.signing_key or "", algorithm="HS256", headers=backend._headers)


def key(person: User, *permitted: KeyScope, expired: bool = False, revoked: bool = False) -> dict[str, str]:
    issued = issue_key(person, name="x", scopes=permitted or tuple(KeyScope))
    if expired:
        ApiKey.objects.filter(pk=issued.row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    if revoked:
        revoke_key(issued.row)
    return bearer(issued.text)


def logged_out(person: User) -> str:
    pair = tokens.begin_family(person)
    tokens.log_out(pair.refresh)
    return pair.access


def disabled() -> User:
    person = make_user("disabled")
    person.is_active = False
    person.save()
    return person


def staff_user() -> User:
    person = make_user("staff")
    person.is_staff = True
    person.save()
    return person


def served(token: str | None) -> dict[str, str]:
    return {"X-Service-Token": token or ""}


def used_service_token() -> dict[str, str]:
    headers = served(service_token.mint("gateway"))
    service_token.verify(headers["X-Service-Token"], allowed=frozenset({"gateway"}))
    return headers


def with_key(scope: KeyScope, ann: User) -> Visitor:
    return Visitor(key_with(scope), _always(key(ann, scope)), OUTSIDE)


VISITORS: dict[str, Callable[[User], Visitor]] = {
    "anonymous on this machine": lambda ann: Visitor(on_this_machine),
    "anonymous behind a proxy": lambda ann: Visitor(nobody, lambda: {"X-Forwarded-For": "127.0.0.1"}),
    "anonymous elsewhere": lambda ann: Visitor(nobody, address=OUTSIDE),
    "a page of another origin": lambda ann: Visitor(foreign_page, lambda: {"Origin": EVIL}),
    "the user": lambda ann: Visitor(user, _always(bearer(access(ann))), OUTSIDE),
    "another user": lambda ann: Visitor(user, _always(bearer(access(make_user("bob")))), OUTSIDE),
    "a user's session": lambda ann: Visitor(session_without_csrf, session_of=ann),
    "staff": lambda ann: Visitor(lambda row: None, _always(bearer(access(staff_user()))), OUTSIDE),
    "a service": lambda ann: Visitor(service, lambda: served(service_token.mint("gateway")), OUTSIDE),
    "an unknown service": lambda ann: Visitor(nobody, lambda: served(service_token.mint("comfy")), OUTSIDE),
    "a replayed service token": lambda ann: Visitor(nobody, _always(used_service_token()), OUTSIDE),
    **{f"a key for {scope}": partial(with_key, scope) for scope in KeyScope},
    "a key of staff": lambda ann: Visitor(
        key_with(KeyScope.OPERATE, staff=True), _always(key(staff_user(), KeyScope.OPERATE)), OUTSIDE
    ),
    "an expired key": lambda ann: Visitor(nobody, _always(key(ann, expired=True))),
    "a revoked key": lambda ann: Visitor(nobody, _always(key(ann, revoked=True))),
    "a key of a disabled user": lambda ann: Visitor(nobody, _always(key(disabled()))),
    "an expired token": lambda ann: Visitor(nobody, _always(bearer(access(ann, exp=1_700_000_000)))),
    "another audience": lambda ann: Visitor(nobody, _always(bearer(access(ann, aud="somebody-else")))),
    "another issuer": lambda ann: Visitor(nobody, _always(bearer(access(ann, iss="somebody-else")))),
    "a refresh token": lambda ann: Visitor(nobody, _always(bearer(refresh_token(ann)))),
    "after a logout": lambda ann: Visitor(nobody, _always(bearer(logged_out(ann)))),
    "a disabled user": lambda ann: Visitor(nobody, _always(bearer(access(disabled())))),
    "what is no token": lambda ann: Visitor(nobody, _always(bearer("a.b.c"))),
}


def _always(headers: dict[str, str]) -> Callable[[], dict[str, str]]:
    return lambda: headers


def stored() -> dict[str, int]:
    """The number of rows of every table, but the ledger of the GPU, which a look at it begins."""
    return {
        model._meta.label: model._default_manager.count()
        for app in ("chat", "memory", "inference", "auth")
        for model in apps.get_app_config(app).get_models()
        if model is not GpuLedger
    }


def wrong_status(row: Row, visitor: Visitor, api: Api, *, is_owner: bool) -> str:
    """Return the difference between the expected and the real status of one call, empty for none."""
    expected = visitor.expected(row)
    # Where the caller is let in, an object that is not there or a body that is none keeps the call from doing anything.
    is_foreign = row.name in OWNED and not is_owner
    path = row.path if expected is not None or is_foreign else row.elsewhere
    body: object = GOOD_BODIES.get((row.name, row.method)) if expected is not None or is_foreign else "["
    headers = visitor.headers()
    raw = "" if row.method == "GET" else body if isinstance(body, str) else json.dumps(body or {})
    # Not by Api.call, which takes JSON alone: two of the routes have other answers.
    response = api.client.generic(
        row.method, path, raw, content_type=JSON, headers=headers, REMOTE_ADDR=visitor.address
    )
    response.close()
    status = response.status_code
    if expected is not None:
        return "" if status == expected else f"{status} instead of {expected}"
    if is_foreign:
        return "" if status in (404, 409) else f"{status} for an object of Ann's"
    return "" if status not in (401, 403) or row.name.startswith("token") else f"refused with {status}"


@pytest.mark.parametrize("kind", VISITORS)
def test_each_route_for(kind: str, rows: list[Row], ann: User) -> None:
    visitor = VISITORS[kind](ann)
    api = Api(visitor.address, enforce_csrf_checks=True)
    if visitor.session_of is not None:
        api.log_in(visitor.session_of)
    is_owner = kind == "the user" or kind.startswith(("a user's session", "a key for"))
    before = stored()
    wrong = {}
    for row in rows:
        if difference := wrong_status(row, visitor, api, is_owner=is_owner):
            wrong[f"{row.method} {row.path}"] = difference
    assert wrong == {}
    assert stored() == before


def socket_scope(headers: dict[str, str], address: str, person: User | None) -> dict[str, Any]:
    raw = [(name.lower().encode(), value.encode()) for name, value in {"Host": "localhost", **headers}.items()]
    session = type("Session", (), {"session_key": "x"})()
    return {"headers": raw, "client": (address, 1), "user": person, "session": session, "query_string": b""}


@pytest.mark.parametrize("kind", VISITORS)
def test_the_socket_for(kind: str, rows: list[Row], ann: User) -> None:
    visitor = VISITORS[kind](ann)
    row = Row("ws-chat", "POST", "", "", "callers")
    status = None
    try:
        credentials_of(cast(Any, socket_scope(visitor.headers(), visitor.address, visitor.session_of)))
    except ChatError as error:
        status = error.status
    assert status == visitor.expected(row)


class TestAdmin:
    """Its pages take a session of staff with the right permission, and nothing else."""

    def pages(self) -> list[str]:
        admin = next(route for route in get_resolver().url_patterns if getattr(route, "app_name", "") == "admin")
        assert isinstance(admin, URLResolver)
        open_to_all = {"login", "logout", "jsi18n"}
        parameters = {name: ways[0][0][1] for name, ways in cast(Any, admin.reverse_dict).items()}
        names = [name for name in parameters if isinstance(name, str) and name not in open_to_all]
        plain = [name for name in names if not parameters[name]]
        assert len(plain) > 15
        return [reverse(f"admin:{name}") for name in plain]

    def test_who_has_no_session_of_staff_sees_the_login(self, ann: User) -> None:
        session = Client()
        session.force_login(ann)
        for path in self.pages():
            for client, headers in ((Client(), {}), (session, {}), (Client(), bearer(access(ann)))):
                response = client.get(path, headers=headers)
                assert (response.status_code, "/admin/login/" in response.headers.get("Location", "")) == (302, True)

    def test_staff_without_permissions_sees_nothing(self) -> None:
        client = Client()
        client.force_login(staff_user())
        statuses = {path: client.get(path).status_code for path in self.pages()}
        allowed = {"/admin/", "/admin/password_change/", "/admin/password_change/done/", "/admin/autocomplete/"}
        assert {path for path, status in statuses.items() if status == 200} <= allowed
        assert set(statuses.values()) <= {200, 302, 403, 404}
