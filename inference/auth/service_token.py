"""Service tokens: the credentials in ``X-Service-Token`` between the services of one installation, each valid once.

Knows the installation's keys, the clock and the store of used ids; the format is defined in ``signing``. Knows no HTTP.
"""

import hmac
import math
import time

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
    """Return a new token for one request; None when the installation has no key."""
    keys = _keys()
    return signing.minted(keys[0], service_id) if keys else None


def has_keys() -> bool:
    """Return whether any service can be let in: the installation has a key, if only the previous one."""
    return bool(settings.JWT_SECRET_PRIMARY or settings.JWT_SECRET or settings.JWT_SECRET_PREVIOUS)


def verify(token: str, *, allowed: frozenset[str]) -> str:
    """Return the id of the service that sent ``token``, and mark the token as used.

    Raises ServiceTokenRefused, StoreUnavailable.
    """
    part, dot, signature = token.partition(".")
    if not dot or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise ServiceTokenRefused("The service token is malformed.")
    # All keys are tried, regardless of ``kid`` and of a match, so that the time taken reveals nothing.
    matches = [hmac.compare_digest(signing.signature(key, part), signature) for key in _keys()]
    if not any(matches):
        raise ServiceTokenRefused("The service token is not signed with a key of this installation.")
    try:
        payload = signing.payload(part)
    except ValueError as error:
        raise ServiceTokenRefused("The service token is malformed.") from error
    expires_at = payload.get("expires_at")
    if not isinstance(expires_at, int | float) or not time.time() < expires_at < math.inf:
        raise ServiceTokenRefused("The service token has expired.")
    if payload.get("aud") != AUDIENCE:
        raise ServiceTokenRefused("The service token is meant for another audience.")
    service_id = payload.get("service_id")
    if not isinstance(service_id, str) or service_id not in allowed:
        raise ServiceTokenRefused("This service is not permitted to call this endpoint.")
    _use_up(payload.get("jti"), expires_at)
    return service_id


def _use_up(jti: object, expires_at: float) -> None:
    if not isinstance(jti, str) or not 1 <= len(jti) <= 128:
        raise ServiceTokenRefused("The service token has no id.")
    now = time.time()
    # Compared before the subtraction, since a time may be an integer that no float holds. One second longer than the
    # token is valid: Redis's clock may round the other way.
    keep_secs = min(max(1, math.ceil(min(expires_at, now + MAX_KEEP_SECS) - now)) + 1, MAX_KEEP_SECS)
    try:
        key = f"{_JTI_PREFIX}{jti}".encode("utf-8", "surrogatepass")  # JSON may name half of a surrogate pair
        is_new = shared_client().set(key, 1, nx=True, ex=keep_secs)
    except redis.RedisError as error:
        # Without the store a replay cannot be detected, so that every token is refused.
        raise StoreUnavailable("The store of used service tokens does not answer.") from error
    if not is_new:
        raise ServiceTokenRefused("The service token has been used before.")


def _keys() -> list[SigningKey]:
    """The signing key, then the previous one, which is still accepted."""
    try:
        first = signing.signing_key(primary=settings.JWT_SECRET_PRIMARY, single=settings.JWT_SECRET)
        keys = [first] if first else []
        if settings.JWT_SECRET_PREVIOUS:
            keys.append(SigningKey("k0", signing.secret_bytes("JWT_SECRET_PREVIOUS", settings.JWT_SECRET_PREVIOUS)))
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from error
    return keys
