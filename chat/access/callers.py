"""Identities: one key each, the owner of conversations and generations. Knows no credentials."""

from dataclasses import dataclass
from typing import Self

from django.contrib.auth.base_user import AbstractBaseUser

from chat.access.owners import SERVICE_PREFIX
from chat.enums import KeyScope


@dataclass(frozen=True)
class Caller:
    """An identity: a signed-in user, another service, or the one local identity without credentials.

    ``scopes`` are those of the user's API key, None for all other credentials.
    """

    key: str
    user: AbstractBaseUser | None = None
    scopes: frozenset[KeyScope] | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= 64:
            raise ValueError(f"a caller's key has 1 to 64 characters, got {self.key!r}")

    @classmethod
    def of_user(cls, user: AbstractBaseUser, scopes: frozenset[KeyScope] | None = None) -> Self:
        return cls(f"user:{user.pk}", user, scopes)

    @classmethod
    def local(cls) -> Self:
        """Return the identity of callers without credentials, and of the management commands."""
        return cls("local")

    @property
    def is_service(self) -> bool:
        return self.key.startswith(SERVICE_PREFIX)

    @property
    def service_id(self) -> str:
        """Name of a service; empty for others."""
        return self.key.removeprefix(SERVICE_PREFIX) if self.is_service else ""

    @classmethod
    def of_service(cls, service_id: str) -> Self:
        return cls(f"{SERVICE_PREFIX}{service_id}")
