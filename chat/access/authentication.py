"""Credentials of a request -> a Caller. The same rules for views, DRF and WebSocket.

In this order: bearer (a JWT or an API key), service token, session, none at all from a trusted network. Wrong
credentials are refused, never ignored. With JWT_ONLY only the first two are valid.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import unquote

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from rest_framework.authentication import BaseAuthentication, CSRFCheck
from rest_framework.request import Request

from chat.access import tokens, usage
from chat.access.api_keys import API_KEY_PREFIX, check_key, verify_key
from chat.access.callers import Caller
from chat.access.origins import (
    DIRECT_HTTP_VERSION,
    http_version_of,
    is_anonymous_network,
    is_listed_origin,
    is_own_origin,
)
from chat.access.query_credentials import refuse_query_credentials
from chat.access.scopes import SAFE_METHODS, check_scopes
from chat.access.usage import RequestsExceeded
from chat.errors import Forbidden, Unauthorized
from chat.schemas.error_bodies import CHALLENGE
from compat.drf_requests import django_request
from inference.auth import service_token
from inference.errors import ServiceTokenRefused

ALLOWED_SERVICES = frozenset({"gateway", "transcription-service", "ml-service"})
_JWT = re.compile(r"\A[\w-]*\.[\w-]*\.[\w-]*", re.ASCII)
OWN_SITES = ("none", "same-origin")  # values of Sec-Fetch-Site
BUDGET_KEY = "gemma.request_budget"
BEARER_WAY = "send an access token or an API key as Authorization: Bearer"


class HeaderMap(Protocol):
    """Headers of HTTP or of a WebSocket; names are looked up in lower case."""

    def get(self, name: str, /) -> str | None: ...


@dataclass(frozen=True)
class Credentials:
    """An authenticated caller; ``expires_at`` in unix seconds, None for as long as the connection.

    ``check`` raises Unauthorized when the credentials were withdrawn since; it blocks on the database.
    """

    caller: Caller
    expires_at: float | None = None
    check: Callable[[], object] | None = None


def caller_of(request: HttpRequest, *, any_key: bool = False) -> Caller:
    """Return the caller of an HTTP request, which counts; blocks on the database. Raises Unauthorized, Forbidden,
    TooManyRequests, Unavailable.

    With ``any_key`` a bearer that only another service can have issued is ignored, where none is needed; a key as
    X-Api-Key is then a bearer.
    """
    caller = _identify(request, any_key=any_key)
    # For the middleware, which shows it in the headers of the response.
    try:
        request.META[BUDGET_KEY] = usage.count_request(caller)
    except RequestsExceeded as error:
        request.META[BUDGET_KEY] = error.budget
        raise
    return caller


def _identify(request: HttpRequest, *, any_key: bool) -> Caller:
    refuse_query_credentials(request.META.get("QUERY_STRING", ""), way=BEARER_WAY)
    credentials = _with_any_key(request) if any_key else from_headers(request.headers)
    if credentials is not None:
        route = request.resolver_match.url_name if request.resolver_match else None
        check_scopes(credentials.caller.scopes, route=route or "", method=request.method or "")
        return credentials.caller
    if settings.JWT_ONLY:
        raise Unauthorized(f"{BEARER_WAY}, or a service token as X-Service-Token")
    if (page_user := request.headers.get("X-Page-User")) and unquote(page_user) != request.user.get_username():
        # Not as whoever signed in since, and not as all who need no sign-in.
        raise Unauthorized("the session of this page has ended: sign in again")
    if request.user.is_authenticated:
        _check_csrf(request)
        return Caller.of_user(request.user)
    origin = request.headers.get("Origin")
    if origin is not None and is_listed_origin(origin, request.get_host()):
        # Such a page can read what it gets, in the browser of somebody on a trusted network.
        raise Unauthorized("pages of this origin must send an access token as Authorization: Bearer")
    if request.method not in SAFE_METHODS and _is_of_foreign_page(request, origin):
        raise Forbidden("pages of another origin may not write here without credentials", code="foreign_origin")
    return anonymous(request.META.get("REMOTE_ADDR"), request.headers, http_version_of(request))


def _is_of_foreign_page(request: HttpRequest, origin: str | None) -> bool:
    if origin is not None:
        return not is_own_origin(origin, request.get_host())
    # Browsers send it with every request, also where they leave the origin out; programs send neither.
    return request.headers.get("Sec-Fetch-Site", "none").lower() not in OWN_SITES


def from_headers(headers: HeaderMap) -> Credentials | None:
    """Return the credentials in the headers, None without any. Raises Unauthorized."""
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            message = "the Authorization header must be Bearer with an access token or an API key"
            raise Unauthorized(message, code="invalid_token")
        return from_bearer(token.strip())
    proof = headers.get("x-service-token")
    if proof is None:
        return None
    try:
        return Credentials(Caller.of_service(service_token.verify(proof, allowed=ALLOWED_SERVICES)))
    except ServiceTokenRefused as error:
        raise Unauthorized(str(error), code=error.code) from error


def from_bearer(token: str) -> Credentials:
    """Return the user of an access token or an API key. Raises Unauthorized."""
    if not token.startswith(API_KEY_PREFIX):
        return from_jwt(token)
    key = verify_key(token)
    caller = Caller.of_user(key.user, key.permissions)
    return Credentials(caller, key.expires_at.timestamp(), partial(check_key, key.pk))


def from_jwt(raw: str) -> Credentials:
    """Return the user of a valid access token. Raises Unauthorized."""
    user, token = tokens.verify_access(raw)
    return Credentials(Caller.of_user(user), float(token["exp"]), partial(tokens.check_access, token))


def anonymous(address: str | None, headers: Mapping[str, str], http_version: str = DIRECT_HTTP_VERSION) -> Caller:
    """Return the local identity, for peers from ANONYMOUS_NETWORKS without a proxy in between."""
    if settings.JWT_ONLY or not is_anonymous_network(address, headers, http_version):
        raise Unauthorized("credentials are needed from this network")
    return Caller.local()


def _with_any_key(request: HttpRequest) -> Credentials | None:
    """Return the credentials of a caller who may send a key that is none of ours where no credentials are needed."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    # Anthropic's clients send their key so; some send a placeholder as bearer beside it.
    api_key = headers.get("x-api-key")
    if api_key is not None and ("authorization" not in headers or (_is_ours(api_key) and _is_foreign_bearer(headers))):
        headers["authorization"] = f"Bearer {api_key}"
    is_foreign = _is_foreign_bearer(headers) and "x-service-token" not in headers
    address, version = request.META.get("REMOTE_ADDR"), http_version_of(request)
    if is_foreign and not settings.JWT_ONLY and is_anonymous_network(address, request.headers, version):
        return None
    return from_headers(headers)


def _is_foreign_bearer(headers: Mapping[str, str]) -> bool:
    scheme, _, key = headers.get("authorization", "").strip().partition(" ")
    return scheme.lower() == "bearer" and not _is_ours(key)


def _is_ours(key: str) -> bool:
    """Return whether a key has the form of our tokens or API keys, valid or not."""
    return _JWT.fullmatch(key.strip()) is not None or key.strip().startswith(API_KEY_PREFIX)


def _no_view(request: HttpRequest) -> HttpResponse:
    """A view that is not exempt from the CSRF check."""
    return HttpResponse()


def _check_csrf(request: HttpRequest) -> None:
    check = CSRFCheck(_no_view)
    check.process_request(request)
    reason = check.process_view(request, _no_view, (), {})
    if reason:
        raise Forbidden(f"a session needs the CSRF token: {reason}", code="csrf_failed")


class ApiAuthentication(BaseAuthentication):
    """The same rules for DRF: ``request.auth`` is the Caller."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser | AnonymousUser, Caller]:
        caller = caller_of(django_request(request))
        return caller.user or AnonymousUser(), caller

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE
