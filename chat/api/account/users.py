"""The user behind a request to pages of an account."""

from typing import cast

from django.contrib.auth.base_user import AbstractBaseUser
from rest_framework.request import Request

from chat.access.callers import Caller
from chat.errors import Forbidden


def user_of(request: Request) -> AbstractBaseUser:
    """Return the signed-in user. Raises Forbidden for services and the local identity."""
    user = cast(Caller, request.auth).user
    if user is None:
        raise Forbidden("this belongs to users: log in, or send an access token", code="user_required")
    return user
