"""API keys of users: made, verified, revoked. Knows no HTTP; which routes a scope permits is in ``scopes``.

A key is ``gemma-<8 characters>-<43 characters>``. It is random, so that one SHA-256 protects it as well as a slow hash.
"""

import hashlib
import hmac
import logging
import re
import secrets
import string
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import Error as DatabaseError
from django.db.models import Q
from django.utils import timezone

from chat.enums import KeyScope, KeyState
from chat.errors import Conflict, Unauthorized
from chat.models import ApiKey
from chat.transactions import one_transaction

log = logging.getLogger(__name__)

# OpenAI's packages always send some key. Neither a JWT nor a key with this beginning is ever taken for one of those.
API_KEY_PREFIX = "gemma-"
DEFAULT_SCOPES = (KeyScope.CHAT, KeyScope.MEMORIES)
DEFAULT_DAYS = 365
MAX_ACTIVE_KEYS = 50  # of one user
MAX_ENDED_KEYS = 200  # of one user; the oldest beyond them are deleted
# The time of a key's last use is that exact, so that not every request writes a row.
LAST_USE_EXACTNESS = timedelta(minutes=10)

_PREFIX_CHARS = 8
_SECRET_CHARS = 43  # 222 bits
_ALPHABET = string.ascii_lowercase + string.digits
_KEY = re.compile(rf"({API_KEY_PREFIX}[a-z0-9]{{{_PREFIX_CHARS}}})-[a-z0-9]{{{_SECRET_CHARS}}}")


@dataclass(frozen=True)
class IssuedKey:
    """A new key and its row; the text is never seen again."""

    row: ApiKey
    text: str


@one_transaction
def issue_key(
    user: AbstractBaseUser,
    *,
    name: str,
    scopes: Collection[KeyScope] = DEFAULT_SCOPES,
    lifetime_days: int = DEFAULT_DAYS,
) -> IssuedKey:
    """Make a key. Raises Conflict when the user has too many."""
    prefix = API_KEY_PREFIX + _random_text(_PREFIX_CHARS)
    text = f"{prefix}-{_random_text(_SECRET_CHARS)}"
    now = timezone.now()
    # Locked, so that parallel requests do not all find room for one more.
    get_user_model()._default_manager.select_for_update().get(pk=user.pk)
    keys = ApiKey.objects.filter(user_id=user.pk)
    if keys.filter(revoked_at__isnull=True, expires_at__gt=now).count() >= MAX_ACTIVE_KEYS:
        raise Conflict(f"a user has at most {MAX_ACTIVE_KEYS} active API keys; revoke one", code="too_many_keys")
    surplus = keys.ended(now).values_list("pk", flat=True)[MAX_ENDED_KEYS:]
    keys.filter(pk__in=list(surplus)).delete()
    row = keys.create(
        user_id=user.pk,
        name=name,
        prefix=prefix,
        digest=_digest(text),
        scopes=[scope.value for scope in KeyScope if scope in scopes],
        expires_at=now + timedelta(days=lifetime_days),
    )
    log.info("api key issued key=%s user=%s", prefix, user.pk)
    return IssuedKey(row, text)


def delete_ended_keys(*, before: datetime) -> int:
    """Delete the rows of keys that were revoked or had expired by then; return how many."""
    return ApiKey.objects.ended(before).delete()[0]


def verify_key(text: str) -> ApiKey:
    """Return the row of an active key of an active user, with its user. Raises Unauthorized."""
    match = _KEY.fullmatch(text)
    row = ApiKey.objects.select_related("user").filter(prefix=match[1]).first() if match else None
    if row is None or not hmac.compare_digest(row.digest, _digest(text)):
        raise Unauthorized("the API key is not valid", code="invalid_token")
    if row.state is KeyState.EXPIRED:
        raise Unauthorized("the API key has expired", code="token_expired")
    _check_not_ended(row)
    _note_use(row)
    return row


def check_key(pk: int) -> None:
    """Raises Unauthorized when a key that was verified before has been revoked since, or its user deactivated."""
    _check_not_ended(ApiKey.objects.select_related("user").filter(pk=pk).first())


def _check_not_ended(row: ApiKey | None) -> None:
    if row is None or row.state is KeyState.REVOKED or not row.user.is_active:
        raise Unauthorized("the API key is not valid", code="invalid_token")


def revoke_key(row: ApiKey) -> bool:
    """Revoke a key for good; False if it was revoked before."""
    now = timezone.now()
    is_done = bool(ApiKey.objects.filter(pk=row.pk, revoked_at__isnull=True).update(revoked_at=now))
    if is_done:
        log.info("api key revoked key=%s user=%s", row.prefix, row.user_id)
    return is_done


def _note_use(row: ApiKey) -> None:
    now = timezone.now()
    if row.last_used_at is not None and now - row.last_used_at < LAST_USE_EXACTNESS:
        return
    unnoted = Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - LAST_USE_EXACTNESS)
    try:
        ApiKey.objects.filter(unnoted, pk=row.pk).update(last_used_at=now)
    except DatabaseError as error:
        # A locked database must not refuse a valid key.
        log.warning("last use of an api key not noted key=%s error=%s", row.prefix, error)


def _random_text(n_chars: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(n_chars))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
