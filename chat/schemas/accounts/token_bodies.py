"""Bodies of the token endpoints: login, refresh, logout, and the pair of tokens that the first two answer with."""

from typing import Annotated

import msgspec
from msgspec import Meta

from chat.schemas.scalars import NonEmptyText

MAX_SECRET_CHARS = 4096

Secret = Annotated[NonEmptyText, Meta(max_length=MAX_SECRET_CHARS)]


class LoginBody(msgspec.Struct, frozen=True, kw_only=True):
    username: Annotated[NonEmptyText, Meta(max_length=150)]
    password: Secret


class RefreshBody(msgspec.Struct, frozen=True, kw_only=True):
    refresh: Secret


class LogoutBody(msgspec.Struct, frozen=True, kw_only=True):
    """The refresh token of the login to end; with ``everywhere`` all logins of its user end."""

    refresh: Secret
    everywhere: bool | None = None


class TokenPair(msgspec.Struct, frozen=True, kw_only=True):
    """An access token for requests, and a refresh token that gives the next pair once; lifetimes in seconds."""

    access: str
    refresh: str
    expires_in: int
    refresh_expires_in: int
