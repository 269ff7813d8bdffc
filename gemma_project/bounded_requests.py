"""Daphne's HTTP, but of a body that is too large only as much is kept as tells so; it would fill the disk otherwise."""

from urllib.parse import urlsplit

from daphne.http_protocol import HTTPFactory, WebRequest
from twisted.internet.interfaces import IAddress, IProtocol

from chat.api.middleware.json_errors import largest_body


class BoundedRequest(WebRequest):  # type: ignore[misc]
    """The rest is read and dropped, so that the client hears the answer instead of a reset connection."""

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  Twisted's name
        # Twisted tells a request its path when the body is complete; until then its channel keeps it.
        path = urlsplit(getattr(self.channel, "_path", b"").decode("latin-1")).path
        room = largest_body(path) + 1 - self.content.tell()
        if room > 0:
            super().handleContentChunk(data[:room])


class BoundedFactory(HTTPFactory):  # type: ignore[misc]
    def buildProtocol(self, addr: IAddress) -> IProtocol:  # noqa: N802  Twisted's name
        protocol: IProtocol = super().buildProtocol(addr)
        protocol.requestFactory = BoundedRequest
        return protocol
