"""Bodies of the API keys: the request for a new one, a key as it is listed, and the new one with its text."""

from datetime import datetime
from typing import Annotated

import msgspec
from django.utils import timezone
from msgspec import Meta

from chat.enums import KeyScope, KeyState
from chat.models import ApiKey
from chat.schemas.decoding import FieldError
from chat.schemas.scalars import NonEmptyText

MAX_LIFETIME_DAYS = 3650


class KeyBody(msgspec.Struct, frozen=True, kw_only=True):
    """A new key. ``scopes``: chat and memories by default. It expires after ``expires_in_days``, by default 365."""

    name: Annotated[NonEmptyText, Meta(max_length=100)]
    scopes: Annotated[list[KeyScope], Meta(min_length=1, max_length=4)] | None = None
    expires_in_days: Annotated[int, Meta(ge=1, le=MAX_LIFETIME_DAYS)] | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise FieldError("name", "must not be blank")


class KeyAnswer(msgspec.Struct, kw_only=True):
    """An API key without its text; ``prefix`` is the beginning of the text."""

    id: int
    name: str
    prefix: str
    scopes: list[KeyScope]
    state: KeyState
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKeyAnswer(KeyAnswer, kw_only=True):
    """A new API key; ``key`` is its text, which is shown this once."""

    key: str


def key_answer(row: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        id=row.pk,
        name=row.name,
        prefix=row.prefix,
        scopes=sorted(row.permissions),
        state=row.state,
        created_at=timezone.localtime(row.created_at),
        expires_at=timezone.localtime(row.expires_at),
        last_used_at=timezone.localtime(row.last_used_at) if row.last_used_at else None,
        revoked_at=timezone.localtime(row.revoked_at) if row.revoked_at else None,
    )


def new_key_answer(row: ApiKey, text: str) -> NewKeyAnswer:
    return NewKeyAnswer(**msgspec.structs.asdict(key_answer(row)), key=text)
