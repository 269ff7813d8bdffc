"""Read the handshake of a WebSocket: headers, and a token offered as a subprotocol.

A browser's page can set no header but that of the subprotocols: it sends its token beside ``gemma.v1``, and only the
latter is echoed.
"""

from collections.abc import Mapping
from typing import Any

from chat.errors import Unauthorized

SUBPROTOCOL = "gemma.v1"
TOKEN_WAY = f'send an access token or API key as Authorization: Bearer, or as a subprotocol beside "{SUBPROTOCOL}"'

Scope = Mapping[str, Any]


def accepted_subprotocol(scope: Scope) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


def offered_token(scope: Scope) -> str | None:
    """Return the token that stands beside the subprotocol. Raises Unauthorized."""
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


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope.get("headers", ()):
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        # A repeated header is joined, as HTTP has it, so that none can hide behind another.
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers
