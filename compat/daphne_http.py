"""Run Daphne on a listening socket of our own, with bounded request bodies and errors in the application's format.

Internals used: the check for endpoints in ``Server.__init__``, ``Server.ws_factory``, ``Server.create_application``,
``WebRequest.basic_error``, ``HTTPChannel._path``.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

# Daphne installs the reactor that the next lines import.
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server
from twisted.internet import reactor
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IAddress, IProtocol

from compat.autobahn_handshake import JsonHandshake
from compat.connection_limits import ConnectionLimits
from compat.half_close import current_channel
from compat.twisted_http import ERROR_TYPE, HEAD_SECS, ErrorBody, JsonChannel

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 768  # within the 1,024 files that a process may have open where nothing was raised
BodyLimit = Callable[[str], int]


class BoundedRequest(WebRequest):  # type: ignore[misc]
    """Keeps at most one byte more of a body than its path allows, which is enough for the application to refuse it.

    The rest is read and dropped: a client that is still sending would otherwise see a reset connection, no answer.
    """

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  Twisted's name
        room = self.channel.factory.largest_body(path_of(self.channel)) + 1 - self.content.tell()
        if room > 0:
            super().handleContentChunk(data[:room])

    def process(self) -> None:
        # By this header any client could choose the prefix under which the application takes itself to be served.
        self.requestHeaders.removeHeader(b"daphne-root-path")
        subprotocols: list[bytes] = self.requestHeaders.getRawHeaders(b"sec-websocket-protocol", [])
        if not all(value.isascii() for value in subprotocols):
            self.basic_error(400, b"", "a WebSocket subprotocol is not ASCII")
        elif self.clientproto != b"HTTP/1.1" and self.requestHeaders.hasHeader(b"upgrade"):
            # Daphne would take it for a request of 1.1; a proxy that speaks 1.0 forwards no upgrade.
            self.basic_error(400, b"", "a WebSocket needs HTTP/1.1")
        else:
            super().process()

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        if self._response_started:
            self.loseConnection()
            return
        if status < 500:  # Daphne logs the cause of the others
            log.info("request refused status=%d client=%s error=%s", status, getattr(self.client, "host", ""), body)
        content = self.channel.factory.error_body(status, body)
        headers = [(b"Content-Type", ERROR_TYPE.encode()), (b"Content-Length", b"%d" % len(content))]
        self.handle_reply({"type": "http.response.start", "status": status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": content})


def path_of(channel: object) -> str:
    """Return the path of the request that a Twisted channel is reading: the request itself has it after the body."""
    return urlsplit(getattr(channel, "_path", b"").decode("latin-1")).path


class BoundedFactory(HTTPFactory):  # type: ignore[misc]
    # Twisted's own chooses between HTTP/1.1 and HTTP/2, which needs TLS.
    protocol = JsonChannel

    def __init__(self, server: "AdoptingServer") -> None:
        super().__init__(server)
        self.largest_body = server.largest_body
        self.error_body = server.error_body
        self.half_close_secs = server.half_close_secs
        self.head_secs = server.head_secs
        self.limits = server.limits

    def buildProtocol(self, addr: IAddress) -> IProtocol:  # noqa: N802  Twisted's name
        protocol: IProtocol = super().buildProtocol(addr)
        # Twisted would parse forms, too, only to drop the result.
        protocol.requestFactory = partial(BoundedRequest, parsePOSTFormSubmission=False)
        return protocol


class AdoptingServer(Server):  # type: ignore[misc]
    """Daphne's server, listening on a socket that is open already. ``options`` are Daphne's own.

    ``error_body`` renders the errors of requests that do not reach the application. ``half_close_secs``: how long a
    client that has shut its sending side may wait for its answer. ``head_secs``: how long the head of a request may
    take to arrive.
    """

    def __init__(
        self,
        application: object,
        *,
        listener: socket.socket,
        largest_body: BodyLimit,
        error_body: ErrorBody,
        half_close_secs: float,
        head_secs: float = HEAD_SECS,
        max_connections: int = MAX_CONNECTIONS,
        **options: object,
    ) -> None:
        # Daphne exits when it is built without an endpoint; its `fd:` endpoint takes every socket for IPv4.
        super().__init__(application, endpoints=["replaced below"], ready_callable=self._adopt, **options)
        self.endpoints: list[str] = []
        self.largest_body = largest_body
        self.error_body = error_body
        self.half_close_secs = half_close_secs
        self.head_secs = head_secs
        self.limits = ConnectionLimits(max_connections)
        self._listener = listener

    def create_application(self, protocol: object, scope: dict[str, Any]) -> "asyncio.Queue[Any] | None":
        token = current_channel.set(getattr(protocol, "channel", None))
        try:
            messages: asyncio.Queue[Any] | None = super().create_application(protocol, scope)
        finally:
            current_channel.reset(token)
        return messages

    def _adopt(self) -> None:
        # A frame that is too large ends its connection with a close code (1009), not with a reset. The second option
        # repeats Daphne's choice, which the call would undo.
        self.ws_factory.setProtocolOptions(failByDrop=False, allowNullOrigin=True)
        self.ws_factory.protocol = JsonHandshake
        family = self._listener.family
        endpoint = AdoptedStreamServerEndpoint(reactor, self._listener.detach(), family)
        endpoint.listen(BoundedFactory(self)).addErrback(self.listen_error)
