"""Bodies of the token endpoints: login, refresh, and the pair of tokens that both answer with."""

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


class TokenPair(msgspec.Struct, frozen=True, kw_only=True):
    """An access token for requests, and a refresh token that gives the next pair once."""

    access: str
    refresh: str
