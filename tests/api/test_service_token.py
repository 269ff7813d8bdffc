"""The service token: keys, expiry, audience, allowed callers, and that one token works once."""

import base64
import hashlib
import hmac
import json
import math
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from chat.access.callers import Caller
from chat.api.gpu_access import check_operator
from chat.errors import Unauthorized
from inference.auth import service_token
from inference.errors import ServiceTokenRefused, StoreUnavailable

ALLOWED = frozenset({"gateway", "ml-service"})
SECRET = "an old secret of more than 32 bytes, in plain words"
PRIMARY = base64.b64encode(bytes(range(40))).decode()
PREVIOUS = base64.urlsafe_b64encode(bytes(range(250, 210, -1))).decode().rstrip("=")


@pytest.fixture(autouse=True)
def single_key(settings: Settings) -> None:
    settings.JWT_SECRET = SECRET
    settings.JWT_SECRET_PRIMARY = settings.JWT_SECRET_PREVIOUS = None


def payload(**changes: object) -> dict[str, Any]:
    """The payload that another service would sign now."""
    request_id = str(uuid.uuid4())
    now = int(time.time())
    base = {"service_id": "gateway", "request_id": request_id, "jti": request_id, "issued_at": now}
    return base | {"expires_at": now + 30, "aud": "internal", "kid": "legacy"} | changes


def signed(content: object, secret: bytes = SECRET.encode()) -> str:
    """Built here from the protocol's words, not with the code under test."""
    part = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    mac = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    return f"{part}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def test_a_colleagues_token_names_its_service() -> None:
    assert service_token.verify(signed(payload()), allowed=ALLOWED) == "gateway"


def test_our_own_token_has_every_field_of_the_protocol() -> None:
    token = service_token.mint()
    assert token is not None
    assert "=" not in token
    part = token.partition(".")[0]
    content = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert content["service_id"] == "gemma-service"
    assert content["jti"] == content["request_id"]
    assert content["aud"] == "internal"
    assert content["kid"] == "legacy"
    assert content["issued_at"] <= time.time() < content["expires_at"]
    assert service_token.verify(token, allowed=frozenset({"gemma-service"})) == "gemma-service"


def test_without_a_key_there_is_no_token_and_none_is_accepted(settings: Settings) -> None:
    token = signed(payload())
    settings.JWT_SECRET = None
    assert service_token.mint() is None
    with pytest.raises(ServiceTokenRefused):
        service_token.verify(token, allowed=ALLOWED)


def test_the_second_use_is_refused() -> None:
    token = signed(payload())
    service_token.verify(token, allowed=ALLOWED)
    with pytest.raises(ServiceTokenRefused, match="used before"):
        service_token.verify(token, allowed=ALLOWED)


def test_a_refused_token_does_not_use_up_its_id() -> None:
    content = payload()
    with pytest.raises(ServiceTokenRefused):
        service_token.verify(signed(content | {"aud": "public"}), allowed=ALLOWED)
    assert service_token.verify(signed(content), allowed=ALLOWED) == "gateway"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expires_at": 1_000_000_000}, "expired"),
        ({"expires_at": None}, "expired"),
        ({"expires_at": "2099-01-01"}, "expired"),
        ({"expires_at": True}, "expired"),
        ({"expires_at": float("nan")}, "expired"),
        ({"aud": "public"}, "audience"),
        ({"aud": ["internal"]}, "audience"),
        ({"service_id": "somebody"}, "not permitted"),
        ({"service_id": ["gateway"]}, "not permitted"),
        ({"jti": None}, "no id"),
        ({"jti": ""}, "no id"),
        ({"jti": "x" * 129}, "no id"),
    ],
)
def test_what_is_wrong_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ServiceTokenRefused, match=words):
        service_token.verify(signed(payload(**changes)), allowed=ALLOWED)


@pytest.mark.parametrize(
    "token",
    ["", ".", "abc", "abc.", ".abc", "a.b.c", "é.ü", "x" * 5000 + ".y", signed([1]), signed("text"), signed(None)],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ServiceTokenRefused):
        service_token.verify(token, allowed=ALLOWED)


def test_a_changed_payload_is_refused() -> None:
    part, _, signature = signed(payload()).partition(".")
    other = signed(payload(service_id="ml-service")).partition(".")[0]
    assert other != part
    with pytest.raises(ServiceTokenRefused, match="not signed"):
        service_token.verify(f"{other}.{signature}", allowed=ALLOWED)


def test_another_installations_key_is_refused() -> None:
    with pytest.raises(ServiceTokenRefused, match="not signed"):
        service_token.verify(signed(payload(), b"k" * 32), allowed=ALLOWED)


def test_during_a_change_of_keys_both_are_honoured(settings: Settings) -> None:
    settings.JWT_SECRET_PRIMARY, settings.JWT_SECRET_PREVIOUS = PRIMARY, PREVIOUS
    for secret in (bytes(range(40)), bytes(range(250, 210, -1))):
        assert service_token.verify(signed(payload(), secret), allowed=ALLOWED) == "gateway"
    with pytest.raises(ServiceTokenRefused):  # the single key counts only while there is no primary
        service_token.verify(signed(payload()), allowed=ALLOWED)


def test_the_primary_key_signs(settings: Settings) -> None:
    settings.JWT_SECRET_PRIMARY, settings.JWT_SECRET_PREVIOUS = PRIMARY, PREVIOUS
    part, _, signature = (service_token.mint() or "").partition(".")
    mac = hmac.new(bytes(range(40)), part.encode(), hashlib.sha256).digest()
    assert signature == base64.urlsafe_b64encode(mac).decode().rstrip("=")
    assert json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["kid"] == "k1"


@pytest.mark.parametrize("short", ["k" * 31, base64.b64encode(b"k" * 20).decode()])
def test_a_short_key_is_refused_by_name(settings: Settings, short: str) -> None:
    settings.JWT_SECRET_PRIMARY = short
    with pytest.raises(ImproperlyConfigured, match=r"JWT_SECRET_PRIMARY has .* at least 32"):
        service_token.mint()


def test_base64_that_is_too_short_counts_as_its_characters(settings: Settings) -> None:
    text = base64.b64encode(b"k" * 27).decode()  # 36 characters that decode to 27 bytes
    settings.JWT_SECRET = text
    assert service_token.verify(signed(payload(), text.encode()), allowed=ALLOWED) == "gateway"


def test_without_the_store_nothing_is_let_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service_token, "shared_client", lambda: redis.Redis.from_url(f"unix://{tmp_path}/nobody.sock"))
    with pytest.raises(StoreUnavailable):
        service_token.verify(signed(payload()), allowed=ALLOWED)


@pytest.mark.parametrize("expires_at", [1e15, 1e308, 10**15, 10**309, 10**400, 10**1500])
def test_a_far_expiry_can_be_stored(expires_at: float) -> None:
    assert service_token.verify(signed(payload(expires_at=expires_at)), allowed=ALLOWED) == "gateway"


@pytest.mark.parametrize("jti", ["\ud800", "a\udfff", "\x00", "é" * 128, " ", "\U0010ffff"])
def test_an_id_of_any_characters_works_once(jti: str) -> None:
    token = signed(payload(jti=jti))
    assert service_token.verify(token, allowed=ALLOWED) == "gateway"
    with pytest.raises(ServiceTokenRefused, match="used before"):
        service_token.verify(token, allowed=ALLOWED)


@pytest.mark.parametrize("expires_at", [-(10**400), 0, -1e308, -math.inf, math.inf])
def test_a_time_that_is_over_or_none_is_refused(expires_at: float) -> None:
    with pytest.raises(ServiceTokenRefused, match="expired"):
        service_token.verify(signed(payload(expires_at=expires_at)), allowed=ALLOWED)


def test_the_previous_key_alone_is_a_key(settings: Settings) -> None:
    """The GPU is then no longer lent to callers without credentials."""
    settings.JWT_SECRET = None
    check_operator(Caller.local())
    settings.JWT_SECRET_PREVIOUS = "the previous key of more than thirty-two bytes"
    with pytest.raises(Unauthorized):
        check_operator(Caller.local())
