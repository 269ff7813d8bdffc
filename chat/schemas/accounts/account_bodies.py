"""The body that deletes an account, and the export of one."""

from typing import Any

import msgspec

from chat.schemas.accounts.token_bodies import Secret


class AccountDeletionBody(msgspec.Struct, frozen=True, kw_only=True):
    """The user's password, once more."""

    password: Secret


class AccountExport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that belongs to a user; entries have the form in which their routes answer."""

    user: dict[str, Any]
    conversations: list[dict[str, Any]]
    notes: list[dict[str, Any]]
    transcripts: list[dict[str, Any]]
    api_keys: list[dict[str, Any]]
    usage: list[dict[str, Any]]
