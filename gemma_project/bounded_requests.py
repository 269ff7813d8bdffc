"""Daphne's HTTP, but of a body that is too large only as much is kept as tells so; it would fill the disk otherwise."""

from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings
from twisted.internet.interfaces import IAddress, IProtocol


class BoundedRequest(WebRequest):  # type: ignore[misc]
    """The rest is read and dropped, so that the client hears the answer instead of a reset connection."""

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  Twisted's name
        # Which path it is for is not known yet; the views look at their own limit.
        largest = max(settings.REQUEST_MAX_BYTES, settings.TRANSCRIPT_MAX_BYTES)
        room = largest + 1 - self.content.tell()
        if room > 0:
            super().handleContentChunk(data[:room])


class BoundedFactory(HTTPFactory):  # type: ignore[misc]
    def buildProtocol(self, addr: IAddress) -> IProtocol:  # noqa: N802  Twisted's name
        protocol: IProtocol = super().buildProtocol(addr)
        protocol.requestFactory = BoundedRequest
        return protocol
