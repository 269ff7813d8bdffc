"""Run Daphne on a listening socket of our own, with request bodies that are bounded while they arrive.

Internals used: the check for endpoints in ``Server.__init__``, ``Server.ws_factory``, ``HTTPChannel._path``.
"""

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

# Daphne installs the reactor that the next lines import.
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server
from twisted.internet import reactor
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IAddress, IProtocol

BodyLimit = Callable[[str], int]


class BoundedRequest(WebRequest):  # type: ignore[misc]
    """Keeps at most one byte more of a body than its path allows, which is enough for the application to refuse it.

    The rest is read and dropped: a client that is still sending would otherwise see a reset connection, no answer.
    """

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  Twisted's name
        room = self.channel.factory.largest_body(path_of(self.channel)) + 1 - self.content.tell()
        if room > 0:
            super().handleContentChunk(data[:room])


def path_of(channel: object) -> str:
    """Return the path of the request that a Twisted channel is reading: the request itself has it after the body."""
    return urlsplit(getattr(channel, "_path", b"").decode("latin-1")).path


class BoundedFactory(HTTPFactory):  # type: ignore[misc]
    def __init__(self, server: Server, largest_body: BodyLimit) -> None:
        super().__init__(server)
        self.largest_body = largest_body

    def buildProtocol(self, addr: IAddress) -> IProtocol:  # noqa: N802  Twisted's name
        protocol: IProtocol = super().buildProtocol(addr)
        protocol.requestFactory = BoundedRequest
        return protocol


class AdoptingServer(Server):  # type: ignore[misc]
    """Daphne's server, listening on a socket that is open already. ``options`` are Daphne's own."""

    def __init__(
        self, application: object, *, listener: socket.socket, largest_body: BodyLimit, **options: object
    ) -> None:
        # Daphne exits when it is built without an endpoint; its `fd:` endpoint takes every socket for IPv4.
        super().__init__(application, endpoints=["replaced below"], ready_callable=self._adopt, **options)
        self.endpoints: list[str] = []
        self._listener = listener
        self._largest_body = largest_body

    def _adopt(self) -> None:
        # A frame that is too large ends its connection with a close code (1009), not with a reset. The second option
        # repeats Daphne's choice, which the call would undo.
        self.ws_factory.setProtocolOptions(failByDrop=False, allowNullOrigin=True)
        family = self._listener.family
        endpoint = AdoptedStreamServerEndpoint(reactor, self._listener.detach(), family)
        endpoint.listen(BoundedFactory(self, self._largest_body)).addErrback(self.listen_error)
