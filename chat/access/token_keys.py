"""The keys of our JWT: new tokens are signed with JWT_SIGNING_KEY, those of JWT_SIGNING_KEY_PREVIOUS remain valid.

The header ``kid`` names the key; an unknown one is refused. Tokens of earlier versions have none: both keys are tried.
"""

import hashlib
from functools import cache
from typing import Any

import jwt
from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenBackendExpiredToken
from rest_framework_simplejwt.settings import api_settings


class TokenKeys(TokenBackend):
    """Signs with the first key and verifies with all; the algorithm is the same for all and not the token's choice."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(api_settings.ALGORITHM, keys[0], **_checks())
        self._verifiers = {key_id(key): TokenBackend(api_settings.ALGORITHM, key, **_checks()) for key in keys}
        self._headers = {"kid": key_id(keys[0])}

    def encode(self, payload: dict[str, Any]) -> str:
        claims = payload | {"aud": self.audience, "iss": self.issuer}
        return jwt.encode(claims, self.signing_key or "", algorithm=self.algorithm, headers=self._headers)

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:  # noqa: ANN401  simplejwt's type is wrong
        """Return the claims. Raises TokenBackendError, TokenBackendExpiredToken."""
        for verifier in self._candidates(token):
            try:
                return verifier.decode(token, verify)
            except TokenBackendExpiredToken:
                raise  # signed with this key
            except TokenBackendError:
                continue
        raise TokenBackendError("Token is invalid")

    def _candidates(self, token: Any) -> list[TokenBackend]:  # noqa: ANN401
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError as error:
            raise TokenBackendError("Token is invalid") from error
        if kid is None:
            return list(self._verifiers.values())
        return [verifier for name, verifier in self._verifiers.items() if name == kid]


def _checks() -> dict[str, Any]:
    return {"audience": api_settings.AUDIENCE, "issuer": api_settings.ISSUER, "leeway": api_settings.LEEWAY}


def key_id(key: str) -> str:
    """Return the public name of a key."""
    return hashlib.sha256(b"kid:" + key.encode()).hexdigest()[:8]


def token_keys() -> TokenKeys:
    return _of(tuple(key for key in (settings.JWT_SIGNING_KEY, settings.JWT_SIGNING_KEY_PREVIOUS) if key))


@cache
def _of(keys: tuple[str, ...]) -> TokenKeys:
    return TokenKeys(keys)
