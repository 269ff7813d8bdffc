"""Login, refresh and logout with access and refresh tokens."""

from typing import Any

import msgspec
from django.contrib.auth import authenticate
from rest_framework.request import Request
from rest_framework.response import Response

from chat.access import login_limit, tokens
from chat.api.drf import JsonApi
from chat.errors import Unauthorized
from chat.schemas.accounts.token_bodies import LoginBody, LogoutBody, RefreshBody, TokenPair
from chat.schemas.decoding import decode
from compat.drf_requests import django_request


class TokenView(JsonApi):
    """Body: username, password. Answers with a pair of tokens."""

    authentication_classes = ()

    def post(self, request: Request) -> Response:
        body = decode(LoginBody, request.data)
        return _response(log_in(request, body.username, body.password))


class TokenRefreshView(JsonApi):
    """Body: refresh. Answers with a new pair; the old refresh token is used up."""

    authentication_classes = ()

    def post(self, request: Request) -> Response:
        return _response(tokens.refresh(decode(RefreshBody, request.data).refresh))


class TokenLogoutView(JsonApi):
    """Body: refresh, everywhere. The refresh token proves the login, so that an expired access token is no obstacle."""

    authentication_classes = ()

    def post(self, request: Request) -> Response:
        body = decode(LogoutBody, request.data)
        tokens.log_out(body.refresh, everywhere=bool(body.everywhere))
        return Response(status=204)


def log_in(request: Request, username: str, password: str) -> TokenPair:
    """Return the first pair of a new family. Raises Unauthorized, TooManyRequests."""
    django = django_request(request)
    with login_limit.attempt(django, username):
        user = authenticate(django, username=username, password=password)
        if user is None:
            raise Unauthorized("no active account has this name and password", code="wrong_credentials")
    return tokens.begin_family(user)


def _response(pair: TokenPair) -> Response:
    body: dict[str, Any] = msgspec.to_builtins(pair)
    return Response(body, headers={"Cache-Control": "no-store"})
