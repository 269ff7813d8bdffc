"""Daphne's WebSocket protocol, with a body for refused handshakes and the reason of a close.

Internals used: ``WebSocketServerProtocol.sendHttpErrorResponse``, ``WebSocketProtocol.handle_reply``, ``serverClose``.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from daphne.ws_protocol import WebSocketProtocol

from compat.twisted_http import ERROR_TYPE

log = logging.getLogger(__name__)

NORMAL_CLOSURE = 1000


class JsonHandshake(WebSocketProtocol):  # type: ignore[misc]
    """Refuses a handshake with the error of the application's close message, which Daphne drops."""

    close_reason = ""

    def handle_reply(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "websocket.close":
            self.close_reason = message.get("reason") or ""
        super().handle_reply(message)

    def serverClose(self, code: int | None = None) -> None:  # noqa: N802  Daphne's name
        self.sendClose(code=code or NORMAL_CLOSURE, reason=self.close_reason or None)

    def sendHttpErrorResponse(  # noqa: N802  Autobahn's name
        self,
        code: int,
        reason: str,
        responseHeaders: Sequence[tuple[str, str]] | None = None,  # noqa: N803
    ) -> None:
        message = self.close_reason or reason
        log.info("handshake refused status=%d client=%s error=%s", code, self.peer, message)
        body = self.factory.server_class.error_body(code, message)
        headers = [*(responseHeaders or ()), ("Content-Type", ERROR_TYPE), ("Content-Length", str(len(body)))]
        lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", *(f"{name}: {value}" for name, value in headers)]
        self.sendData("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
