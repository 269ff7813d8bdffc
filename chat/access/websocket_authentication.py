"""Credentials of a WebSocket, whose headers a browser's page cannot set but for one.

A page sends its token as a subprotocol beside ``gemma.v1``; only the latter is echoed.
"""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser

from chat.access.authentication import Credentials, anonymous, from_headers, from_jwt
from chat.access.callers import Caller
from chat.access.origins import is_listed_origin, is_own_origin, is_served_host
from chat.access.query_credentials import refuse_query_credentials
from chat.errors import Forbidden, Unauthorized

SUBPROTOCOL = "gemma.v1"
TOKEN_WAY = f'send an access token as Authorization: Bearer, or as a subprotocol beside "{SUBPROTOCOL}"'

Scope = Mapping[str, Any]


def credentials_of(scope: Scope) -> Credentials:
    """Return the credentials of a connection; blocks on the database. Raises Unauthorized, Forbidden."""
    headers = _headers(scope)
    host = headers.get("host", "")
    if not is_served_host(host):
        raise Forbidden("this Host header is not served here", code="invalid_host")
    refuse_query_credentials(scope.get("query_string", b"").decode("latin-1"), way=TOKEN_WAY)
    # A token is not sent by itself, as a cookie is: a page that has one may be of any origin.
    token = _offered_token(scope)
    credentials = from_jwt(token) if token is not None else from_headers(headers)
    if credentials is not None:
        return credentials
    if settings.JWT_ONLY:
        raise Unauthorized(TOKEN_WAY)
    user: AbstractBaseUser | AnonymousUser = scope.get("user") or AnonymousUser()
    origin = headers.get("origin")
    if origin is not None and is_listed_origin(origin, host):
        raise Unauthorized(f"pages of this origin need credentials; {TOKEN_WAY}")
    # Browsers attach cookies, and let any page connect to this machine: the page's origin decides. A cookie without
    # an origin is no browser's doing that could be trusted.
    has_session = user is not None and user.is_authenticated
    if (origin is None and has_session) or (origin is not None and not is_own_origin(origin, host)):
        raise Forbidden("pages of another origin may not connect without a token", code="foreign_origin")
    if user.is_authenticated:
        return Credentials(Caller.of_user(user))
    client = scope.get("client")
    return Credentials(anonymous(client[0] if client else None, headers))


def accepted_subprotocol(scope: Scope) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


def _offered_token(scope: Scope) -> str | None:
    offered = list(scope.get("subprotocols", ()))
    if not offered:
        return None
    if SUBPROTOCOL not in offered:
        # Most likely a token that was sent alone.
        raise Unauthorized(f"the subprotocol is unknown; {TOKEN_WAY}", code="unknown_subprotocol")
    tokens = [name for name in offered if name != SUBPROTOCOL]
    if len(tokens) > 1:
        raise Unauthorized("a connection may offer one token", code="invalid_token")
    return tokens[0] if tokens else None


def _headers(scope: Scope) -> dict[str, str]:
    """By lower-case name; a repeated header is joined, as HTTP has it, so that none can hide behind another."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope.get("headers", ()):
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers
