"""Users and the credentials they show."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import jwt
from django.conf import settings
from django.contrib.auth.models import User
from rest_framework_simplejwt.tokens import AccessToken

from chat.access.tokens import FamilyToken

PASSWORD = "a rather long password"


def make_user(name: str = "ann") -> User:
    return User.objects.create_user(name, password=PASSWORD)


def access_token(user: User) -> str:
    return str(AccessToken.for_user(cast(Any, user)))


def refresh_token(user: User) -> str:
    return str(FamilyToken.for_user(cast(Any, user)))


def bearer(token: str) -> dict[str, str]:
    """The header as Django's test client takes it."""
    return {"Authorization": f"Bearer {token}"}


def forged(user: User, *, key: str | None = None, algorithm: str = "HS256", **changes: object) -> str:
    """An access token with some claims changed (None: left out), signed with another key or algorithm if given."""
    claims: Mapping[str, object] = AccessToken.for_user(cast(Any, user)).payload | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    signing_key = settings.JWT_SIGNING_KEY if key is None else key
    return jwt.encode(kept, "" if algorithm == "none" else signing_key, algorithm=algorithm)


def expired(user: User) -> str:
    token = AccessToken.for_user(cast(Any, user))
    token.set_exp(lifetime=-timedelta(minutes=1))
    return str(token)
