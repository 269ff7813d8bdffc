"""Credentials of a WebSocket: a token in its handshake, else the session of a page of this service."""

from functools import partial
from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from chat.access.authentication import Credentials, anonymous, from_bearer, from_headers
from chat.access.callers import Caller
from chat.access.origins import is_listed_origin, is_own_origin, is_served_host
from chat.access.query_credentials import refuse_query_credentials
from chat.access.scopes import check_scopes
from chat.access.websocket_scope import TOKEN_WAY, Scope, headers_of, offered_token
from chat.errors import Forbidden, Unauthorized


def credentials_of(scope: Scope) -> Credentials:
    """Return the credentials of a connection; blocks on the database. Raises Unauthorized, Forbidden."""
    headers = headers_of(scope)
    host = headers.get("host", "")
    if not is_served_host(host):
        raise Forbidden("this Host header is not served here", code="invalid_host")
    refuse_query_credentials(scope.get("query_string", b"").decode("latin-1"), way=TOKEN_WAY)
    # A token is not sent by itself, as a cookie is: a page that has one may be of any origin.
    token = offered_token(scope)
    credentials = from_bearer(token) if token is not None else from_headers(headers)
    if credentials is not None:
        check_scopes(credentials.caller.scopes, route="ws-chat", method="POST")
        return credentials
    if settings.JWT_ONLY:
        raise Unauthorized(TOKEN_WAY)
    # From here on there is no token: the caller is a session, or anonymous.
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
        return Credentials(Caller.of_user(user), check=partial(check_session, scope["session"].session_key))
    client = scope.get("client")
    return Credentials(anonymous(client[0] if client else None, headers))


def check_session(session_key: str | None) -> None:
    """Raises Unauthorized when a session has ended since: logout, a changed password, a deactivated user, its age."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    if not get_user(request).is_authenticated:
        raise Unauthorized("the session has ended; log in again")
