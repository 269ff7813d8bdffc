"""Twisted's HTTP/1.1 channel, with error bodies, UTF-8 request targets and half-closed connections.

Internals used: ``HTTPChannel._respondToBadRequestAndDisconnect``, ``_path``, ``_transferDecoder``,
``_handlingRequest``, ``_receivedHeaderSize``, ``_receivedHeaderCount``, ``_networkProducer``, ``LineReceiver._buffer``.
"""

import logging
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from compat.connection_limits import ConnectionLimits

log = logging.getLogger(__name__)

# (status, sentence) -> body
ErrorBody = Callable[[int, str], bytes]
ERROR_TYPE = "application/json"
# Time to read what a refused client is still sending: unread data would turn the answer into a reset connection.
LINGER_SECS = 2.0
# Seconds for the head of a request, and for its body at least. Twisted's own limit is one of silence, which a byte now
# and then never exceeds.
HEAD_SECS = 20.0
BODY_SECS = 60.0
MIN_BODY_RATE = 50_000  # bytes a second, of a long body
TLS_HANDSHAKE = b"\x16"


class ChannelFactory(Protocol):
    """The attributes of a factory that its channels read."""

    error_body: ErrorBody
    half_close_secs: float
    head_secs: float
    limits: ConnectionLimits

    def largest_body(self, path: str) -> int: ...


@implementer(IHalfCloseableProtocol)
class JsonChannel(HTTPChannel):  # type: ignore[misc]
    """Refuses malformed requests with a body, and answers a client that has shut its sending side.

    Such a client gets ``half_close_secs``; then its connection closes, which the application sees as a disconnect.
    """

    factory: ChannelFactory

    def __init__(self) -> None:
        super().__init__()
        self.half_closed_at: float | None = None
        self._is_refused = False
        self._has_received = False
        self._closing: IDelayedCall | None = None
        self._late: IDelayedCall | None = None  # deadline of the part of a request that is arriving
        self._arriving: tuple[int, bool] | None = None  # that part: number of the request, and whether it is the body
        self._n_requests = 0

    def connectionMade(self) -> None:  # noqa: N802  Twisted's name
        super().connectionMade()
        if not self.factory.limits.open(self.transport, self, getattr(self.getPeer(), "host", "")):
            self.abort()
        else:
            self._set_deadline()

    @property
    def is_waiting(self) -> bool:
        """True while no request is complete."""
        return not self._handlingRequest

    def abort(self) -> None:
        self.transport.abortConnection()

    def _set_deadline(self) -> None:
        """Start the clock of the head or body that is arriving; nothing bounds the time between two requests here."""
        is_first = self._n_requests == 0
        if self._handlingRequest or self._is_refused or not (is_first or self._is_incomplete()):
            part, secs = None, 0.0
        elif self._is_before_headers() or self.line_mode:
            part, secs = (self._n_requests, False), self.factory.head_secs
        else:
            n_bytes = self.length or self.factory.largest_body("/")
            part, secs = (self._n_requests, True), max(BODY_SECS, n_bytes / MIN_BODY_RATE)
        if part == self._arriving:
            return
        self._arriving = part
        if self._late is not None and self._late.active():
            self._late.cancel()
        self._late = self.callLater(secs, self.timeoutConnection) if part else None

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  Twisted's name
        if self._is_refused:
            return
        if not self._has_received and data.startswith(TLS_HANDSHAKE):
            self.refuse(HTTPStatus.BAD_REQUEST, "this port serves http://, not https://")
            return
        self._has_received = True
        super().dataReceived(data)
        self._set_deadline()

    def lineReceived(self, line: bytes) -> None:  # noqa: N802  Twisted's name
        if self._is_before_headers() and self.persistent:
            try:
                line = ascii_target(line)
            except UnicodeDecodeError:
                self.refuse(HTTPStatus.BAD_REQUEST, "the request line is not UTF-8")
                return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802  Twisted's name
        self._receivedHeaderSize += len(line)
        self._respondToBadRequestAndDisconnect()

    def timeoutConnection(self) -> None:  # noqa: N802  Twisted's name
        if self._is_incomplete():
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "the rest of the request did not arrive in time")
        else:
            super().timeoutConnection()

    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer in place of the application, and close the connection."""
        log.info("request refused status=%d client=%s error=%s", status, getattr(self.getPeer(), "host", ""), message)
        self._is_refused = True
        self.clearLineBuffer()
        self.setTimeout(None)
        self._set_deadline()
        body = self.factory.error_body(status, message)
        head = (
            f"HTTP/1.1 {status:d} {status.phrase}\r\nContent-Type: {ERROR_TYPE}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._networkProducer.unregisterProducer()
        if self.half_closed_at is not None:
            self.transport.loseConnection()
            return
        self.transport.loseWriteConnection()
        self._closing = self.callLater(LINGER_SECS, self.transport.abortConnection)

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802  Twisted's name
        if not self._is_refused:
            self.refuse(*self._reason())

    def _reason(self) -> tuple[HTTPStatus, str]:
        is_too_large = self._receivedHeaderSize > self.totalHeadersSize
        if self._is_before_headers():
            if is_too_large:
                return HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line is longer than {self.MAX_LENGTH} bytes"
            return HTTPStatus.BAD_REQUEST, "the request line is not one of HTTP/1.1"
        if is_too_large:
            limit = f"{self.totalHeadersSize} bytes"
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers, cookies included, are larger than {limit}"
        if self._receivedHeaderCount > self.maxHeaders:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"there are more than {self.maxHeaders} headers"
        if not self.line_mode:
            return HTTPStatus.BAD_REQUEST, "the chunks of the body are malformed"
        if self.length is None or self._transferDecoder is not None:
            return HTTPStatus.BAD_REQUEST, "Content-Length or Transfer-Encoding are malformed or contradict each other"
        return HTTPStatus.BAD_REQUEST, "a header is malformed"

    def _is_before_headers(self) -> bool:
        # Twisted deletes the path when a request is complete.
        return not hasattr(self, "_path")

    def _is_incomplete(self) -> bool:
        """Return whether a part of a request has arrived, but not all of it."""
        return not self._is_refused and not self._handlingRequest and bool(self.requests or self._buffer)

    def readConnectionLost(self) -> None:  # noqa: N802  Twisted's name
        """Give the answer its time. A client that closed its socket looks the same until something is written to it."""
        is_first = self.half_closed_at is None
        self.half_closed_at = self.half_closed_at or time.monotonic()
        if self._is_incomplete():
            self.refuse(HTTPStatus.BAD_REQUEST, "the request ended before it was complete")
        elif self._is_refused or not self._handlingRequest:
            self.loseConnection()
        elif is_first:
            self._closing = self.callLater(self.factory.half_close_secs, self.timeoutConnection)

    def writeConnectionLost(self) -> None:  # noqa: N802  Twisted's name
        """Nothing to do after a refusal: the rest of the request is read and dropped."""

    def requestDone(self, request: Request) -> None:  # noqa: N802  Twisted's name
        self._n_requests += 1
        super().requestDone(request)
        self._set_deadline()
        if self.half_closed_at is None or self._handlingRequest:
            return
        if self._is_incomplete():
            self.refuse(HTTPStatus.BAD_REQUEST, "the request ended before it was complete")
        else:
            self.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802  Twisted's name
        for timer in (self._closing, self._late):
            if timer is not None and timer.active():
                timer.cancel()
        self.factory.limits.close(self.transport)
        super().connectionLost(reason)


def ascii_target(line: bytes) -> bytes:
    """Return a request line with its non-ASCII characters percent-encoded. Raises UnicodeDecodeError."""
    line.decode()
    return re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % byte[0][0], line)
