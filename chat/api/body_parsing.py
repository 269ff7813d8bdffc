"""Bytes of a request -> a JSON object, with an answer for every way this can go wrong.

Knows nothing of what the object should hold.
"""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.http import HttpRequest

from chat.api.middleware.json_errors import body_too_large
from chat.errors import InvalidEncoding, InvalidJson, InvalidRequest, UnsupportedMediaType

JSON_TYPE = "application/json"


def json_object(raw: bytes) -> dict[str, Any]:
    """Raises InvalidEncoding, InvalidJson or, when it is JSON but no object, InvalidRequest."""
    # Decoded here: json.loads would guess UTF-16 and UTF-32, too.
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidEncoding(f"the body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise InvalidJson("the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidJson(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def read_object(request: HttpRequest, *, max_bytes: int | None = None) -> dict[str, Any]:
    """The JSON object in the body of a request to a view that is not DRF's; REQUEST_MAX_BYTES if nothing else."""
    _check_content_type(request.content_type or "", dict(request.content_params or {}))
    return json_object(read_bounded(request, max_bytes or settings.REQUEST_MAX_BYTES))


def read_optional_object(request: HttpRequest) -> dict[str, Any]:
    """As ``read_object``; no body at all is an empty object. A chunked one announces no length, so that it is read."""
    raw = read_bounded(request, settings.REQUEST_MAX_BYTES)
    if not raw:
        return {}
    _check_content_type(request.content_type or "", dict(request.content_params or {}))
    return json_object(raw)


def _check_content_type(content_type: str, params: Mapping[str, str]) -> None:
    if content_type.lower() != JSON_TYPE:
        raise UnsupportedMediaType(f"send {JSON_TYPE}, not {content_type or 'a body without a Content-Type'}")
    if params.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("send UTF-8")


def read_bounded(stream: IO[bytes] | HttpRequest, max_bytes: int) -> bytes:
    # One byte more than allowed: a chunked body announces no length.
    raw: bytes = stream.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise body_too_large(max_bytes)
    return raw
