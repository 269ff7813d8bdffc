"""Daphne's WebSocket protocol, with a body for refused handshakes, the reason of a close, and bounds for clients.

Internals used: ``WebSocketServerProtocol.sendHttpErrorResponse``, ``WebSocketProtocol.handle_reply``, ``serverClose``,
``application_queue``, ``_onMessageFrameBegin``, ``_fail_connection``.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import reactor
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from compat.twisted_http import ERROR_TYPE

log = logging.getLogger(__name__)

NORMAL_CLOSURE = 1000
# Parsed at once: 64 KB may hold 9,000 frames, during which nobody else is served.
PIECE_BYTES = 4096
# Messages that the application has not taken yet. Reading goes on when there are fewer.
MAX_QUEUED = 16
QUEUE_SECS = 0.02
# A message of the size limit comes in a few hundred frames from the smallest buffers in use.
MAX_FRAGMENTS = 1024


@implementer(IPushProducer)
class JsonHandshake(WebSocketProtocol):  # type: ignore[misc]
    """Refuses a handshake with the error of the application's close message, which Daphne drops.

    Nothing is read while the client does not read, or sends faster than its messages are taken: both wait in buffers
    of its own connection.
    """

    close_reason = ""
    _n_fragments = 0
    _is_unread = False  # the client does not read: the transport's buffer is full
    _next_piece: IDelayedCall | None = None

    def connectionMade(self) -> None:  # noqa: N802  Twisted's name
        self._unparsed = bytearray()
        # Until here Twisted's HTTP channel has been the producer; its requests read on.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802  Twisted's name
        if self._next_piece is not None and self._next_piece.active():
            self._next_piece.cancel()
        self.factory.server_class.limits.close(self.transport)
        super().connectionLost(reason)

    def pauseProducing(self) -> None:  # noqa: N802  Twisted's name
        self._is_unread = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802  Twisted's name
        self._is_unread = False
        self._parse()

    def stopProducing(self) -> None:  # noqa: N802  Twisted's name
        """The connection is lost."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  Twisted's name
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        """Parse one piece, and go on when others have been served."""
        if self._is_unread or (self._next_piece is not None and self._next_piece.active()):
            return
        queue = getattr(self, "application_queue", None)
        if queue is not None and queue.qsize() >= MAX_QUEUED and self.state == self.STATE_OPEN:
            self._parse_later(QUEUE_SECS)
            return
        piece = bytes(self._unparsed[:PIECE_BYTES])
        del self._unparsed[:PIECE_BYTES]
        if piece:
            super().dataReceived(piece)
        if self._unparsed:
            self._parse_later(0)
        elif not self._is_unread:
            self.transport.resumeProducing()

    def _parse_later(self, secs: float) -> None:
        self.transport.pauseProducing()
        self._next_piece = reactor.callLater(secs, self._parse)

    def _onMessageBegin(self, isBinary: bool) -> None:  # noqa: N802, N803  Autobahn's names
        self._n_fragments = 0
        super()._onMessageBegin(isBinary)

    def _onMessageFrameBegin(self, length: int) -> None:  # noqa: N802  Autobahn's name
        self._n_fragments += 1
        if self._n_fragments == MAX_FRAGMENTS + 1 and not self.failedByMe:
            self._fail_connection(
                self.CLOSE_STATUS_CODE_POLICY_VIOLATION, f"a message has more than {MAX_FRAGMENTS} fragments"
            )
        super()._onMessageFrameBegin(length)

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
