"""Access and refresh tokens of users: login families, a refresh that works once, and their end. Knows no HTTP.

A refresh token belongs to the family of its login, which its id (``jti``) begins with; access tokens name it as claim.
A family is open while one of its refresh tokens is unused. All changes of a user's families lock the user's row: of
parallel uses of one token exactly one is the first, and no token is added to a family that ends meanwhile.
"""

import re
import uuid
from typing import Any, Self, TypeVar, cast

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import ExpiredTokenError, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from chat.access.token_keys import TokenKeys, token_keys
from chat.errors import Unauthorized
from chat.schemas.accounts.token_bodies import TokenPair
from chat.transactions import one_transaction

Kind = TypeVar("Kind", bound=Token)

FAMILY_CLAIM = "family"
# Ids as they are made here. No other is searched for: PostgreSQL raises for a text with a NUL or half a surrogate pair.
_ID = re.compile(r"[0-9a-f]{1,64}(?:\.[0-9a-f]{1,64})?")
# The reasons of one answer, since the reason would help only an attacker.
_REFUSALS = (TokenError, AuthenticationFailed, ValueError, TypeError, OverflowError)


class OwnAccessToken(AccessToken):
    """An access token signed with the installation's keys."""

    def get_token_backend(self) -> TokenKeys:
        return token_keys()

    @property
    def family(self) -> str | None:
        """The login that it comes from; None for tokens of earlier versions. Raises TokenError."""
        family = self.payload.get(FAMILY_CLAIM)
        if FAMILY_CLAIM in self.payload and not _is_id(family):
            raise TokenError("the family is none of ours")
        return family


class FamilyToken(RefreshToken):
    """A refresh token that knows its login."""

    access_token_class = OwnAccessToken

    def get_token_backend(self) -> TokenKeys:
        return token_keys()

    def set_jti(self) -> None:
        family = str(self.payload.get(api_settings.JTI_CLAIM, "")).partition(".")[0] or uuid.uuid4().hex
        self.payload[api_settings.JTI_CLAIM] = f"{family}.{uuid.uuid4().hex}"

    def check_blacklist(self) -> None:
        """Do nothing: a used token is recognised under the lock of its user, and ends its family."""

    @property
    def jti(self) -> str:
        return str(self.payload[api_settings.JTI_CLAIM])

    @property
    def family(self) -> str:
        return self.jti.partition(".")[0]

    # set_jti keeps the family of the token it is called on; a new token begins one.
    def successor(self) -> Self:
        """Return the next token of the family, stored as outstanding."""
        self.set_jti()
        self.set_exp()
        self.set_iat()
        self.outstand()
        return self


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def begin_family(user: AbstractBaseUser) -> TokenPair:
    """Return the first pair of a login."""
    # Nothing else removes them: what has expired cannot be replayed.
    OutstandingToken.objects.filter(user_id=user.pk, expires_at__lt=timezone.now()).delete()
    return _pair(cast(FamilyToken, FamilyToken.for_user(cast(Any, user))))


def refresh(raw: str) -> TokenPair:
    """Return the next pair of the family. Raises Unauthorized; a second use of ``raw`` also ends the family."""
    try:
        pair = _use(raw)
    except (*_REFUSALS, OutstandingToken.DoesNotExist) as error:
        raise Unauthorized("the refresh token is not valid", code="invalid_token") from error
    if pair is None:
        raise Unauthorized("the refresh token was used before; log in again", code="token_reused")
    return pair


@one_transaction
def _use(raw: str) -> TokenPair | None:
    """Use a refresh token; None, and the end of its family, when it was used before."""
    token = _refresh_token(raw)
    _lock_user(token)
    user = JWTAuthentication().get_user(token)  # active, and with the same password
    used = OutstandingToken.objects.get(jti=token.jti, user_id=user.pk)
    _, is_first_use = BlacklistedToken.objects.get_or_create(token=used)
    if is_first_use:
        return _pair(token.successor())
    _end(_family(token.family, user.pk))
    return None


def log_out(raw: str, *, everywhere: bool = False) -> None:
    """End the family of a refresh token, used or not, or all families of its user. Raises Unauthorized."""
    try:
        _end_families(_refresh_token(raw), everywhere=everywhere)
    except (*_REFUSALS, KeyError) as error:
        raise Unauthorized("the refresh token is not valid", code="invalid_token") from error


@one_transaction
def _end_families(token: FamilyToken, *, everywhere: bool) -> None:
    _lock_user(token)
    user_id = token.payload[api_settings.USER_ID_CLAIM]
    owned = OutstandingToken.objects.filter(user_id=user_id)
    _end(owned if everywhere else _family(token.family, user_id))


def verify_access(raw: str) -> tuple[AbstractBaseUser, OwnAccessToken]:
    """Return the user of a valid access token: active, with the same password, not logged out. Raises Unauthorized."""
    token = _decoded(OwnAccessToken, raw, "access")
    return check_access(token), token


def check_access(token: OwnAccessToken) -> AbstractBaseUser:
    """Return the user of a token that was verified before, whatever its age. Raises Unauthorized when it was ended."""
    try:
        user = JWTAuthentication().get_user(token)
        family = token.family
        has_ended = family is not None and not _family(family, user.pk).filter(blacklistedtoken__isnull=True).exists()
    except _REFUSALS as error:
        raise Unauthorized("the access token is not valid", code="invalid_token") from error
    if has_ended:
        raise Unauthorized("the login of this access token has ended", code="invalid_token")
    return user


def _refresh_token(raw: str) -> FamilyToken:
    token = _decoded(FamilyToken, raw, "refresh")
    if not _is_id(token.payload[api_settings.JTI_CLAIM]):
        raise Unauthorized("the refresh token is not valid", code="invalid_token")
    return token


def _decoded(kind: type[Kind], raw: str, name: str) -> Kind:
    try:
        return kind(cast(Any, raw.encode("utf-8", "replace")))
    except ExpiredTokenError as error:
        # Only its former owner has a token that is signed and expired, so that this tells an attacker nothing.
        raise Unauthorized(f"the {name} token has expired", code="token_expired") from error
    except _REFUSALS as error:
        raise Unauthorized(f"the {name} token is not valid", code="invalid_token") from error


def _pair(token: FamilyToken) -> TokenPair:
    access = token.access_token
    access[FAMILY_CLAIM] = token.family
    return TokenPair(
        access=str(access),
        refresh=str(token),
        expires_in=int(api_settings.ACCESS_TOKEN_LIFETIME.total_seconds()),
        refresh_expires_in=int(api_settings.REFRESH_TOKEN_LIFETIME.total_seconds()),
    )


def _family(family: str, user_id: str | int) -> "QuerySet[OutstandingToken]":
    # Read by the index of the users: LIKE has none, and a range depends on the order of the database's locale.
    return OutstandingToken.objects.filter(user_id=user_id, jti__startswith=f"{family}.")


def _end(tokens: "QuerySet[OutstandingToken]") -> None:
    """Mark the tokens as used; those that are already keep their rows."""
    unused = tokens.filter(blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create([BlacklistedToken(token=token) for token in unused], ignore_conflicts=True)


def _lock_user(token: FamilyToken) -> None:
    users = get_user_model()._default_manager
    users.select_for_update().filter(pk=str(token.payload.get(api_settings.USER_ID_CLAIM))).first()
