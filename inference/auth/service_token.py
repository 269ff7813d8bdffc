"""The token that the services of one installation show each other in ``X-Service-Token``: who may call, and once.

Knows the installation's keys, time and the jti store; how it is written stands in ``signing``. Knows nothing of HTTP.
"""

import base64
import hmac
import json
import math
import time
from typing import Any, TypeGuard

import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from inference.auth import signing
from inference.auth.signing import AUDIENCE, SigningKey
from inference.errors import ServiceTokenRefused, StoreUnavailable
from inference.runtime.redis_client import shared_client

MAX_TOKEN_CHARS = 4096
MAX_KEEP_SECS = 2**31  # the store refuses expiries beyond a 64-bit count of ms
_JTI_PREFIX = "s2s:rid:"


def mint(service_id: str = "gemma-service") -> str | None:
    """A fresh token of ours for one request, or None when the installation has no key."""
    keys = _keys()
    return signing.minted(keys[0], service_id) if keys else None


def verify(token: str, *, allowed: frozenset[str]) -> str:
    """The service that sent ``token``, which is used up by this. Raises ServiceTokenRefused, StoreUnavailable."""
    part, dot, signature = token.partition(".")
    if not dot or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise ServiceTokenRefused("the service token is malformed")
    if not _is_signed(part, signature):
        raise ServiceTokenRefused("the service token is not signed with a key of this installation")
    payload = _payload(part)
    expires_at = payload.get("expires_at")
    if not _is_seconds(expires_at) or expires_at <= time.time():
        raise ServiceTokenRefused("the service token has expired")
    if payload.get("aud") != AUDIENCE:
        raise ServiceTokenRefused("the service token is meant for another audience")
    service_id = payload.get("service_id")
    if not isinstance(service_id, str) or service_id not in allowed:
        raise ServiceTokenRefused("this service may not call here")
    _use_up(payload.get("jti"), expires_at)
    return service_id


def _is_signed(part: str, signature: str) -> bool:
    # All keys are tried, whatever ``kid`` says and whichever matched: the time taken tells nothing.
    matches = [hmac.compare_digest(signing.signature(key, part), signature) for key in _keys()]
    return any(matches)


def _is_seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _payload(part: str) -> dict[str, Any]:
    try:
        payload = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError) as error:
        raise ServiceTokenRefused("the service token is malformed") from error
    if not isinstance(payload, dict):
        raise ServiceTokenRefused("the service token is malformed")
    return payload


def _use_up(jti: object, expires_at: float) -> None:
    if not isinstance(jti, str) or not 1 <= len(jti) <= 128:
        raise ServiceTokenRefused("the service token has no id")
    # One second more than it is valid for: the server's clock may round the other way.
    keep_secs = min(max(1, math.ceil(expires_at - time.time())) + 1, MAX_KEEP_SECS)
    try:
        is_new = shared_client().set(_JTI_PREFIX + jti, 1, nx=True, ex=keep_secs)
    except redis.RedisError as error:
        # Without the store a replay cannot be told from a first use, so nothing is let in.
        raise StoreUnavailable("the store of used service tokens does not answer") from error
    if not is_new:
        raise ServiceTokenRefused("the service token was used before")


def _keys() -> list[SigningKey]:
    """The key that signs first, then the one still honoured."""
    try:
        first = signing.signing_key(primary=settings.JWT_SECRET_PRIMARY, single=settings.JWT_SECRET)
        keys = [first] if first else []
        if settings.JWT_SECRET_PREVIOUS:
            keys.append(SigningKey("k0", signing.secret_bytes("JWT_SECRET_PREVIOUS", settings.JWT_SECRET_PREVIOUS)))
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from error
    return keys
