"""Bytes of a request -> a JSON object, with an error for every way this can fail. Knows no fields."""

import gc
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import IO, Any

from django.conf import settings
from django.http import HttpRequest

from chat.api.content_encoding import decompressed
from chat.api.middleware.json_errors import body_too_large
from chat.errors import InvalidEncoding, InvalidJson, InvalidRequest, UnsupportedMediaType, quoted

JSON_TYPE = "application/json"
# About the context of a small model: 20 ms to encode.
LONG_BODY_BYTES = 20_000

_long_json = threading.Lock()


def json_object(raw: bytes) -> dict[str, Any]:
    """Raises InvalidEncoding, InvalidJson or, when it is JSON but no object, InvalidRequest."""
    # Decoded here: json.loads would guess UTF-16 and UTF-32, too. A byte order mark may stand before UTF-8.
    try:
        text = raw.decode("utf-8-sig")
        with _alone() if len(raw) > LONG_BODY_BYTES else nullcontext():
            value = json.loads(text)
    except UnicodeDecodeError as error:
        raise InvalidEncoding(f"the body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise InvalidJson("the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidJson(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


@contextmanager
def _alone() -> Iterator[None]:
    """Parse one long body at a time, without the garbage collector.

    The parser keeps the interpreter to itself, so that several are no faster and others wait for all of them; a
    megabyte of empty lists is parsed in 20 ms, and with the collections that so many objects cause in 400.
    """
    with _long_json:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_enabled:
                gc.enable()


def read_object(request: HttpRequest, *, max_bytes: int | None = None) -> dict[str, Any]:
    """Return the JSON object in the body of a request to a view that is not DRF's. ``max_bytes`` None:
    REQUEST_MAX_BYTES."""
    _check_content_type(request.content_type or "", dict(request.content_params or {}))
    return json_object(read_body(request, request, max_bytes or settings.REQUEST_MAX_BYTES))


def read_optional_object(request: HttpRequest) -> dict[str, Any]:
    """Return the JSON object of the body, an empty one without a body."""
    # Read first: a chunked body announces no length.
    raw = read_body(request, request, settings.REQUEST_MAX_BYTES)
    if not raw:
        return {}
    _check_content_type(request.content_type or "", dict(request.content_params or {}))
    return json_object(raw)


def read_body(request: HttpRequest, stream: IO[bytes] | HttpRequest, max_bytes: int) -> bytes:
    """Return all bytes of a body, decompressed. Raises BodyTooLarge; see also ``decompressed``."""
    # One byte more than allowed: a chunked body announces no length.
    raw: bytes = stream.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise body_too_large(max_bytes)
    return decompressed(raw, request.headers.get("Content-Encoding", ""), max_bytes)


def _check_content_type(content_type: str, params: Mapping[str, str]) -> None:
    if content_type.lower() != JSON_TYPE:
        raise UnsupportedMediaType(f"the Content-Type must be {JSON_TYPE}, not {quoted(content_type)}")
    if params.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("the charset must be UTF-8")
