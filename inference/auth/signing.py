"""The format and signature of a service token: two base64url parts without padding, ``payload.signature``, with
HMAC-SHA256 over the payload part as it is sent.

Knows keys and the clock, neither Django nor HTTP nor permissions. ``service_token`` verifies.
"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

AUDIENCE = "internal"
LIFETIME_SECS = 60
MIN_KEY_BYTES = 32


@dataclass(frozen=True)
class SigningKey:
    kid: str
    secret: bytes


def minted(key: SigningKey, service_id: str) -> str:
    """Return a new token for one request."""
    now = int(time.time())
    request_id = str(uuid.uuid4())
    claims = {
        "service_id": service_id,
        "request_id": request_id,
        "jti": request_id,
        "issued_at": now,
        "expires_at": now + LIFETIME_SECS,
        "aud": AUDIENCE,
        "kid": key.kid,
    }
    part = to_base64url(json.dumps(claims, separators=(",", ":")).encode())
    return f"{part}.{signature(key, part)}"


def signing_key(*, primary: str | None, single: str | None) -> SigningKey | None:
    """The signing key from JWT_SECRET_PRIMARY or JWT_SECRET; None without either."""
    if primary:
        return SigningKey("k1", secret_bytes("JWT_SECRET_PRIMARY", primary))
    return SigningKey("legacy", secret_bytes("JWT_SECRET", single)) if single else None


def secret_bytes(name: str, raw: str) -> bytes:
    """Decode a variable's key. Raises ValueError for one that is too short."""
    secret = _decoded(raw)
    if len(secret) < MIN_KEY_BYTES:
        raise ValueError(f"{name} has {len(secret)} bytes; a key needs at least {MIN_KEY_BYTES}.")
    return secret


def _decoded(raw: str) -> bytes:
    """Decode base64url, else base64, if the result is long enough for a key; else take the characters themselves.

    The other services decode without validation: characters outside of the alphabet are dropped, so that a pass phrase
    with enough letters and digits counts as base64, too. Both sides have to come to the same key.
    """
    text = raw.strip()
    padded = text + "=" * (-len(text) % 4)
    for characters_62_and_63 in (b"-_", b"+/"):
        try:
            decoded = base64.b64decode(padded, characters_62_and_63)
        except ValueError:  # wrong padding, or characters beyond ASCII
            continue
        if len(decoded) >= MIN_KEY_BYTES:
            return decoded
    return text.encode()


def signature(key: SigningKey, part: str) -> str:
    return to_base64url(hmac.new(key.secret, part.encode("ascii"), hashlib.sha256).digest())


def payload(part: str) -> dict[str, Any]:
    """Decode the payload part of a token. Raises ValueError when it is not a JSON object in base64url."""
    try:
        decoded = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except RecursionError as error:
        raise ValueError("The payload is nested too deeply.") from error
    if not isinstance(decoded, dict):
        raise ValueError("The payload is not a JSON object.")  # noqa: TRY004  a fault of the sender's, like the others
    return decoded


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
