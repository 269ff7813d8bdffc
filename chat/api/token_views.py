"""Access and refresh tokens: login, and a refresh that works once.

A refresh token belongs to the family of its login, which its id (``jti``) begins with. Whoever inserts the blacklist
row of a token has used it; a second use means that somebody has a copy, and ends the family.
"""

import uuid
from typing import Any, Self, cast

from django.contrib.auth import authenticate
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from chat.access import login_limit
from chat.api.drf import JsonApi
from chat.errors import Unauthorized
from chat.schemas.decoding import decode
from chat.schemas.token_bodies import LoginBody, RefreshBody
from compat.drf_requests import django_request


class FamilyToken(RefreshToken):
    """A refresh token that knows the login it comes from."""

    def set_jti(self) -> None:
        family = str(self.payload.get(api_settings.JTI_CLAIM, "")).partition(".")[0] or uuid.uuid4().hex
        self.payload[api_settings.JTI_CLAIM] = f"{family}.{uuid.uuid4().hex}"

    def check_blacklist(self) -> None:
        """Not asked here: the row is claimed by inserting it, so that two uses cannot both find it missing."""

    @property
    def jti(self) -> str:
        return str(self.payload[api_settings.JTI_CLAIM])

    # set_jti keeps the family of the token it is called on; a new token begins one.
    def successor(self) -> Self:
        """The next token of the family, stored as outstanding."""
        self.set_jti()
        self.set_exp()
        self.set_iat()
        self.outstand()
        return self


class TokenView(JsonApi):
    """Body: username, password. Answers with a pair of tokens."""

    authentication_classes = ()

    def post(self, request: Request) -> Response:
        body = decode(LoginBody, request.data)
        return Response(log_in(request, body.username, body.password))


class TokenRefreshView(JsonApi):
    """Body: refresh. Answers with a new pair; the old refresh token is used up."""

    authentication_classes = ()

    def post(self, request: Request) -> Response:
        return Response(refresh(decode(RefreshBody, request.data).refresh))


def log_in(request: Request, username: str, password: str) -> dict[str, str]:
    """A new family of tokens. Raises Unauthorized, TooManyRequests."""
    # Behind a proxy this is the proxy: its own limit has to tell people apart then.
    address = request.META.get("REMOTE_ADDR") or "socket"
    login_limit.take(address, username)
    user = authenticate(django_request(request), username=username, password=password)
    if user is None:
        raise Unauthorized("no active account has this name and password", code="wrong_credentials")
    login_limit.give_back(address, username)
    # Nobody else clears them away: what has expired cannot be replayed.
    OutstandingToken.objects.filter(user=user, expires_at__lt=timezone.now()).delete()
    return _pair(cast(FamilyToken, FamilyToken.for_user(cast(Any, user))))


def refresh(raw: str) -> dict[str, str]:
    """The next pair of the family. Raises Unauthorized; a second use of ``raw`` also ends the family."""
    try:
        token = FamilyToken(cast(Any, raw.encode("utf-8", "replace")))
        JWTAuthentication().get_user(token)  # active, and with the same password
        # The insert claims the token and the new pair becomes known with it, or neither does.
        with transaction.atomic():
            used = OutstandingToken.objects.get(jti=token.jti)
            BlacklistedToken.objects.create(token=used)
            return _pair(token.successor())
    except IntegrityError as error:
        # The whole family ends; tokens that were used in the meantime have their rows already.
        prefix = FamilyToken(cast(Any, raw)).jti.partition(".")[0] + "."
        family = OutstandingToken.objects.filter(jti__startswith=prefix)
        BlacklistedToken.objects.bulk_create([BlacklistedToken(token=token) for token in family], ignore_conflicts=True)
        raise Unauthorized("the refresh token was used before", code="token_reused") from error
    except (TokenError, AuthenticationFailed, OutstandingToken.DoesNotExist, ValueError, TypeError) as error:
        raise Unauthorized("the refresh token is not valid", code="invalid_token") from error


def _pair(token: FamilyToken) -> dict[str, str]:
    return {"access": str(token.access_token), "refresh": str(token)}
