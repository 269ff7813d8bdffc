"""API keys: made and shown once, what each scope permits, and all the ways in which they end."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from pytest_django import Settings

from chat.access import api_keys, scopes
from chat.access.api_keys import API_KEY_PREFIX, issue_key, verify_key
from chat.access.websocket_authentication import credentials_of
from chat.api.websocket_routes import websocket_urlpatterns
from chat.enums import KeyScope
from chat.errors import Conflict, Forbidden, Unauthorized
from chat.models import ApiKey, Conversation
from tests.admin.builders import operator
from tests.api.calling import Api
from tests.api.people import access_token, bearer, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.databases]
KEYS, CONVERSATIONS = "/api/keys/", "/api/conversations/"
OUTSIDE = "203.0.113.7"


@pytest.fixture
def ann() -> User:
    return make_user()


def key_of(user: User, *permitted: KeyScope) -> str:
    return issue_key(user, name="script", scopes=permitted or api_keys.DEFAULT_SCOPES).text


def test_a_key_is_made_shown_once_and_works(ann: User) -> None:
    jwt = bearer(access_token(ann))
    made = Api().post(KEYS, {"name": "backup script"}, jwt)
    assert made.status == 201
    assert made.headers["Cache-Control"] == "no-store"
    key = made.body["key"]
    assert key.startswith(made.body["prefix"] + "-")
    assert made.body["scopes"] == ["chat", "memories"]
    Conversation.objects.create(owner=f"user:{ann.pk}", title="Ann's")
    listed = Api(OUTSIDE).get(CONVERSATIONS, bearer(key)).body["results"]
    assert [row["title"] for row in listed] == ["Ann's"]
    again = Api().get(KEYS, jwt).body["results"]
    assert [(row["name"], row["state"]) for row in again] == [("backup script", "active")]
    assert again[0]["last_used_at"] is not None
    stored = json.dumps(list(ApiKey.objects.values()), default=str)
    assert key not in stored
    assert key.rpartition("-")[2] not in stored + json.dumps(again)


def test_a_session_makes_and_revokes_keys_with_its_csrf_token(ann: User) -> None:
    api = Api(enforce_csrf_checks=True)
    api.log_in(ann)
    assert api.post(KEYS, {"name": "x"}).outcome == (403, "csrf_failed")
    api.client.cookies["csrftoken"] = "a" * 32
    made = api.post(KEYS, {"name": "x"}, {"X-CSRFToken": "a" * 32})
    assert made.status == 201
    address = f"{KEYS}{made.body['id']}/"
    assert api.call("DELETE", address, headers={"X-CSRFToken": "a" * 32}).status == 204
    assert api.get(address).body["state"] == "revoked"
    assert Api(OUTSIDE).get(CONVERSATIONS, bearer(made.body["key"])).outcome == (401, "invalid_token")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "\t\u3000\n"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["admin"]}, "scopes[0]"),
        ({"name": "x", "scopes": "chat"}, "scopes"),
        ({"name": "x", "scopes": ["chat"] * 5}, "scopes"),
        ({"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "expires_in_days": 10**9}, "expires_in_days"),
        ({"name": "x", "expires_in_days": "30"}, "expires_in_days"),
        ({"name": "x", "expires_in_days": True}, "expires_in_days"),
    ],
)
def test_bad_bodies_make_nothing(ann: User, body: dict[str, Any], field: str) -> None:
    answer = Api().post(KEYS, body, bearer(access_token(ann)))
    assert (answer.status, answer.body["error"]["field"]) == (400, field)
    assert not ApiKey.objects.exists()


def test_keys_belong_to_users(settings: Settings) -> None:
    for method, path in (("GET", KEYS), ("POST", KEYS), ("GET", f"{KEYS}1/"), ("DELETE", f"{KEYS}1/")):
        assert Api().call(method, path, {"name": "x"}).outcome == (403, "user_required")


def test_anothers_key_does_not_exist(ann: User) -> None:
    key = issue_key(ann, name="ann's")
    bob = bearer(access_token(make_user("bob")))
    for pk in (str(key.row.pk), "0", "x", "²", "9" * 30, "1e3"):
        for method in ("GET", "DELETE"):
            assert Api().call(method, f"{KEYS}{pk}/", headers=bob).outcome == (404, "not_found")
    assert Api().get(KEYS, bob).body["count"] == 0
    assert verify_key(key.text).pk == key.row.pk


def test_a_key_reaches_no_keys(ann: User) -> None:
    everything = bearer(key_of(ann, *KeyScope))
    for method, path in (("GET", KEYS), ("POST", KEYS), ("GET", f"{KEYS}1/"), ("DELETE", f"{KEYS}1/")):
        assert Api().call(method, path, {"name": "x"}, headers=everything).outcome == (403, "insufficient_scope")
    assert ApiKey.objects.count() == 1


class TestEndings:
    def test_expiry(self, ann: User) -> None:
        key = key_of(ann)
        ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert Api().get(CONVERSATIONS, bearer(key)).outcome == (401, "token_expired")

    def test_revocation(self, ann: User) -> None:
        key = key_of(ann)
        assert api_keys.revoke_key(ApiKey.objects.get())
        assert not api_keys.revoke_key(ApiKey.objects.get())
        assert Api().get(CONVERSATIONS, bearer(key)).outcome == (401, "invalid_token")

    def test_deactivation_and_deletion_of_the_user(self, ann: User) -> None:
        key = key_of(ann)
        User.objects.filter(pk=ann.pk).update(is_active=False)
        assert Api().get(CONVERSATIONS, bearer(key)).status == 401
        User.objects.filter(pk=ann.pk).delete()
        assert Api().get(CONVERSATIONS, bearer(key)).status == 401
        assert not ApiKey.objects.exists()

    def test_in_the_admin(self, ann: User) -> None:
        key = issue_key(ann, name="<b>script</b>")
        client = operator()
        page = client.get("/admin/chat/apikey/").content.decode()
        assert "&lt;b&gt;script&lt;/b&gt;" in page
        assert key.row.digest not in page + client.get(f"/admin/chat/apikey/{key.row.pk}/change/").content.decode()
        client.post("/admin/chat/apikey/", {"action": "revoke", "_selected_action": [str(key.row.pk)]})
        with pytest.raises(Unauthorized):
            verify_key(key.text)

    def test_by_command(self, ann: User) -> None:
        shown = StringIO()
        call_command("api_keys", "create", "ann", "--name", "cron", "--scope", "read", stdout=shown, stderr=StringIO())
        key = shown.getvalue().strip()
        assert verify_key(key).permissions == {KeyScope.READ}
        listed = StringIO()
        call_command("api_keys", "list", stdout=listed)
        assert "cron" in listed.getvalue()
        assert key not in listed.getvalue()
        call_command("api_keys", "revoke", verify_key(key).prefix, stdout=StringIO())
        with pytest.raises(Unauthorized):
            verify_key(key)
        for wrong in (["revoke", "gemma-none"], ["create", "nobody", "--name", "x"], ["create", "ann", "--name", "  "]):
            with pytest.raises(CommandError):
                call_command("api_keys", *wrong)


@pytest.mark.parametrize("name", ["x\ngemma-forged1  active", "\x1b[2J\x1b]0;title\x07", "a\u2028b\u202ec"])
def test_a_name_neither_begins_a_line_nor_controls_the_terminal_that_lists_it(ann: User, name: str) -> None:
    assert Api().post(KEYS, {"name": name}, bearer(access_token(ann))).body["name"] == name
    listed = StringIO()
    call_command("api_keys", "list", stdout=listed)
    assert len(listed.getvalue().splitlines()) == 1
    assert listed.getvalue().strip().isprintable()


def test_no_one_makes_keys_without_end(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_ACTIVE_KEYS", 3)
    made = [issue_key(ann, name=str(number)) for number in range(3)]
    with pytest.raises(Conflict):
        issue_key(ann, name="one more")
    api_keys.revoke_key(made[0].row)
    issue_key(ann, name="one more")


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1],
        lambda key: key + "x",
        lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
        lambda key: key.upper(),
        lambda key: API_KEY_PREFIX,
        lambda key: API_KEY_PREFIX + "x" * 5000,
        lambda key: key.rpartition("-")[0] + "-" + "a" * 43,
        lambda key: key + " " + key,
        lambda key: key.replace("-", "–"),
        lambda key: f"{key}, Bearer {key}",
        lambda key: key + "\0",
    ],
)
def test_what_is_almost_a_key_is_refused_even_from_this_machine(ann: User, change: Any) -> None:  # noqa: ANN401
    wrong = change(key_of(ann))
    assert Api().get(CONVERSATIONS, {"Authorization": f"Bearer {wrong}".encode().decode("latin-1")}).status == 401


@pytest.mark.django_db(transaction=True)
class TestV1:
    """Keys of the service count there; on this machine those of other services are still ignored."""

    def test_our_key_in_both_headers(self, ann: User, settings: Settings) -> None:
        settings.JWT_ONLY = True
        key = key_of(ann)
        for headers in (bearer(key), {"X-Api-Key": key}):
            assert Api(OUTSIDE).get("/v1/models", headers).status == 200
        assert Api(OUTSIDE).get("/v1/models", {"X-Api-Key": "sk-other"}).status == 401

    def test_what_is_almost_a_key_is_no_foreign_one(self, ann: User) -> None:
        for wrong in (key_of(ann)[:-1], API_KEY_PREFIX, f"{API_KEY_PREFIX}x"):
            for headers in (bearer(wrong), {"X-Api-Key": wrong}):
                assert Api().get("/v1/models", headers).status == 401

    def test_our_key_counts_beside_a_placeholder(self, ann: User) -> None:
        key = key_of(ann)
        for placeholder in ("Bearer none", "bearer sk-other", "Bearer "):
            headers = {"X-Api-Key": key, "Authorization": placeholder}
            assert Api(OUTSIDE).get("/v1/models", headers).status == 200
            assert Api().get("/v1/models", headers | {"X-Api-Key": key[:-1]}).status == 401
        for other in ("Basic none", f"Bearer {key[:-1]}", "Bearer a.b.c"):
            headers = {"X-Api-Key": key, "Authorization": other}
            assert Api().get("/v1/models", headers).status == 401

    def test_a_foreign_key_is_ignored_here_and_refused_elsewhere(self) -> None:
        for headers in (bearer("sk-other"), {"X-Api-Key": "sk-other"}, bearer("none")):
            assert Api().get("/v1/models", headers).status == 200
            assert Api(OUTSIDE).get("/v1/models", headers).status == 401


READS = [("GET", CONVERSATIONS), ("GET", "/memory/list"), ("GET", "/transcripts/speakers"), ("GET", "/models/list")]
SEARCH = ("POST", "/memory/search", {"query": "x"})


def statuses(key: str, calls: list[tuple[Any, ...]]) -> list[int]:
    return [Api().call(call[0], call[1], *call[2:], headers=bearer(key)).status for call in calls]


@pytest.mark.django_db(transaction=True)
class TestScopes:
    def test_reading_changes_nothing(self, ann: User) -> None:
        key = key_of(ann, KeyScope.READ)
        assert statuses(key, [*READS, SEARCH]) == [200] * 5
        row = Conversation.objects.create(owner=f"user:{ann.pk}", title="Ann's")
        writes = [
            ("POST", CONVERSATIONS, {"title": "x"}),
            ("PATCH", f"{CONVERSATIONS}{row.pk}/", {"title": "x"}),
            ("DELETE", f"{CONVERSATIONS}{row.pk}/"),
            ("POST", "/chat", {"message": "x"}),
            ("POST", "/v1/messages", {}),
            ("POST", "/memory/add", {"title": "t", "body": "b"}),
            ("DELETE", "/memory/1"),
            ("POST", "/warmup", {}),
        ]
        assert statuses(key, writes) == [403] * len(writes)
        assert list(Conversation.objects.values_list("title", flat=True)) == ["Ann's"]

    def test_chat_and_memories_are_apart(self, ann: User) -> None:
        assert statuses(key_of(ann, KeyScope.CHAT), [*READS, SEARCH]) == [200, 403, 403, 200, 403]
        assert statuses(key_of(ann, KeyScope.MEMORIES), [*READS, SEARCH]) == [403, 200, 200, 200, 200]

    def test_the_gpu_needs_its_scope_and_staff(self, ann: User, redis_client: object) -> None:
        call = [("GET", "/gpu/state")]
        assert statuses(key_of(ann, KeyScope.OPERATE), call) == [403]
        User.objects.filter(pk=ann.pk).update(is_staff=True)
        assert statuses(key_of(ann, KeyScope.OPERATE), call) == [200]
        assert statuses(key_of(ann, KeyScope.CHAT, KeyScope.MEMORIES, KeyScope.READ), call) == [403]

    def test_a_scope_of_a_later_version_permits_nothing(self, ann: User) -> None:
        key = key_of(ann)
        ApiKey.objects.update(scopes=["everything"])
        assert statuses(key, [("GET", CONVERSATIONS)]) == [403]


def scope_of(key: str, *, offered: bool = False) -> dict[str, Any]:
    headers = [(b"host", b"localhost")] + ([] if offered else [(b"authorization", f"Bearer {key}".encode())])
    return {"headers": headers, "subprotocols": ["gemma.v1", key] if offered else [], "client": ("203.0.113.7", 1)}


@pytest.mark.parametrize("offered", [False, True])
def test_over_a_socket(ann: User, offered: bool) -> None:
    credentials = credentials_of(scope_of(key_of(ann), offered=offered))
    assert (credentials.caller.key, credentials.expires_at is not None) == (f"user:{ann.pk}", True)
    with pytest.raises(Forbidden):
        credentials_of(scope_of(key_of(ann, KeyScope.READ), offered=offered))
    with pytest.raises(Unauthorized):
        credentials_of(scope_of("gemma-x", offered=offered))


def test_no_route_is_left_out_of_the_scopes() -> None:
    """A new route needs a place in ``chat.access.scopes``, or a line here when keys may not use it."""
    closed = {"api-key-list", "api-key-detail", "account", "account-export"}
    public = {
        "root",
        "health",
        "health-live",
        "health-ready",
        "schema",
        "docs",
        "token",
        "token-refresh",
        "token-logout",
    }
    known = scopes.CHAT_ROUTES | scopes.MEMORY_ROUTES | scopes.OPERATOR_ROUTES | scopes.COMMON_ROUTES
    served = {pattern.name for pattern in _patterns(get_resolver().url_patterns)}
    served |= {pattern.name for pattern in websocket_urlpatterns if pattern.name}
    assert served == known | closed | public
    assert scopes.READING_ROUTES <= scopes.CHAT_ROUTES | scopes.MEMORY_ROUTES


def _patterns(routes: list[URLPattern | URLResolver]) -> list[URLPattern]:
    flat: list[URLPattern] = []
    for route in routes:
        if isinstance(route, URLPattern):
            flat.append(route)
        elif route.app_name not in ("admin", "pages"):
            flat += _patterns(route.url_patterns)
    return flat
