"""Parts of a request, drawn: ids of events, frames, bodies and their encodings, tokens and keys."""

import gzip
import json
import time
from typing import Any

import pytest
import redis
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from chat.access.authentication import from_headers
from chat.access.websocket_scope import headers_of, offered_token
from chat.api import websocket
from chat.api.body_parsing import json_object, read_object, read_optional_object
from chat.api.chat_views import _after
from chat.api.content_encoding import decompressed
from chat.api.turn_requests import read_key
from chat.errors import ChatError
from chat.schemas.stream_types import MAX_AFTER
from inference.auth import service_token
from inference.errors import ServiceTokenRefused
from tests.api.test_service_token import SECRET, signed
from tests.faults.fuzzing import FRAMES, NUMBERS, TEXTS, VALUES
from tests.parsers.drawing import drawn, edited, foreign_json, is_storable, objects

pytestmark = pytest.mark.django_db

MAX_BYTES = 10_000
ALLOWED = frozenset({"gateway"})


@pytest.fixture(autouse=True)
def key_of_services(settings: Settings) -> None:
    settings.JWT_SECRET = SECRET
    settings.JWT_SECRET_PRIMARY = settings.JWT_SECRET_PREVIOUS = None


# Servers decode headers as latin-1.
HEADERS = st.binary(max_size=30).map(lambda raw: raw.decode("latin-1"))
EVENT_IDS = (
    HEADERS | st.integers(-5, 2**40).map(str) | st.sampled_from(["²", "٣", "+1", " 1", "1_0", "9" * 5_000, "0x1"])
)


@drawn
@given(EVENT_IDS)
def test_the_id_of_the_last_event(text: str) -> None:
    request = RequestFactory().get("/chat/stream/x", headers={"Last-Event-ID": text})
    try:
        assert 0 <= _after(request) <= MAX_AFTER
    except ChatError as error:
        assert error.status == 400


@drawn
@given(FRAMES | foreign_json())
def test_frames_of_a_socket(frame: str | bytes) -> None:
    raw = frame if isinstance(frame, bytes) else frame.encode(errors="replace")
    try:
        content = websocket.read_frame(raw)
        about = websocket.read_request_id(content)
        json.dumps(about)
        assert 0 <= websocket.read_after(content) <= MAX_AFTER
    except ChatError as error:
        assert 400 <= error.status < 500


@drawn
@given(VALUES | HEADERS)
def test_keys_of_idempotency(value: Any) -> None:  # noqa: ANN401
    try:
        key = read_key(value)
    except ChatError as error:
        assert error.status == 400
    else:
        assert key is None or is_storable(key)


PACKED = [gzip.compress(b'{"a": 1}'), gzip.compress(b"0" * 9_000), gzip.compress(b"x") * 3, gzip.compress(b"")]
PACKED += [gzip.compress(gzip.compress(b"0" * 100_000)), gzip.compress(b"0" * 1_000_000)]


@drawn
@given(edited(PACKED), st.sampled_from(["gzip", "x-gzip", " GZIP ", "", "identity", "br", "gzip, gzip", "\xff"]))
def test_encoded_bodies(raw: bytes, encoding: str) -> None:
    try:
        assert len(decompressed(raw, encoding, MAX_BYTES)) <= max(MAX_BYTES, len(raw))
    except ChatError as error:
        assert 400 <= error.status < 500


TYPES = st.sampled_from(["application/json", "application/json; charset=utf-8", "application/json; charset=\xff"])
FORMS = [
    b'--x\r\nContent-Disposition: form-data; name="messages"\r\n\r\nHello\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="\xff\0"\r\nContent-Type: a/b\r\n\r\nHi\r\n--x--',
    b'--x\r\nContent-Disposition: form-data; name="q"\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\r\n--x--\r\n',
    b"--x\r\n" + b"A: b\r\n" * 3_000 + b"\r\n\r\n--x--",
    b"a=b&" * 2_000,
]
FORM_TYPES = ["multipart/form-data; boundary=x", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300]
FORM_TYPES += ["application/x-www-form-urlencoded", "multipart/mixed; boundary=\xff", "text/plain"]


@drawn
@given(foreign_json() | edited(FORMS), TYPES | st.sampled_from(FORM_TYPES) | HEADERS)
def test_bodies_of_any_type(body: bytes, content_type: str) -> None:
    request = RequestFactory().generic("POST", "/chat", body, content_type)
    for read in (read_object, read_optional_object):
        try:
            assert isinstance(read(request), dict)
        except ChatError as error:
            assert 400 <= error.status < 500
    try:
        assert isinstance(json_object(body), dict)
    except ChatError as error:
        assert 400 <= error.status < 500


CLAIMS = ["service_id", "jti", "issued_at", "expires_at", "aud", "kid"]
SOON = {"service_id": "gateway", "jti": "j", "expires_at": time.time() + 3_600, "aud": "internal"}
tokens = objects(CLAIMS, st.sampled_from(["gateway", "internal", "j"]) | NUMBERS | TEXTS).map(
    lambda more: signed(SOON | more)
)
signed_tokens = (
    tokens
    | VALUES.map(signed)
    | tokens.flatmap(lambda token: edited([token.encode()])).map(lambda raw: raw.decode("latin-1"))
)


def test_service_tokens(redis_client: "redis.Redis[str]") -> None:
    n_valid = 0

    @drawn
    @given(signed_tokens | HEADERS | TEXTS)
    def one(token: str) -> None:
        nonlocal n_valid
        try:
            assert service_token.verify(token, allowed=ALLOWED) == "gateway"
        except ServiceTokenRefused as error:
            assert len(str(error)) < 200
        else:
            n_valid += 1
            with pytest.raises(ServiceTokenRefused):
                service_token.verify(token, allowed=ALLOWED)

    one()
    assert n_valid > 0


SCHEMES = st.sampled_from(["Bearer ", "bearer ", "Basic ", "", "Bearer gemma-abcdefgh-"])


@drawn
@given(st.builds(lambda scheme, rest: scheme + rest, SCHEMES, HEADERS | TEXTS), st.none() | signed_tokens)
def test_credentials(authorization: str, proof: str | None) -> None:
    headers = {"authorization": authorization} | ({"x-service-token": proof} if proof is not None else {})
    with pytest.raises(ChatError) as caught:
        from_headers(headers)
    assert caught.value.status == 401


@drawn
@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4), st.lists(TEXTS, max_size=4))
def test_handshakes(pairs: list[tuple[bytes, bytes]], subprotocols: list[str]) -> None:
    scope = {"headers": pairs, "subprotocols": subprotocols}
    assert set(headers_of(scope)) == {name.decode("latin-1").lower() for name, _ in pairs}
    try:
        token = offered_token(scope)
    except ChatError as error:
        assert error.status == 401
    else:
        assert token is None or token in subprotocols
