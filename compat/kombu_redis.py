"""Kombu's Redis transport, which drops what is no task: its own raises in the worker's loop, and the worker ends.

Internals used: ``Channel._brpop_read``, ``_queue_cycle``, ``_in_poll``, ``sep``, ``TRANSPORT_ALIASES``.
"""

import logging
from queue import Empty
from typing import Any

from kombu import transport
from kombu.transport.redis import Channel, Transport
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

log = logging.getLogger(__name__)

# Whatever decoding of foreign bytes raises; kombu's JSON also makes dates, numbers and identifiers.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class TolerantChannel(Channel):
    def _brpop_read(self, **options: object) -> bool:
        try:
            try:
                reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:  # type: ignore[attr-defined]
                self.client.connection.disconnect()  # the next turn of the loop connects again
                raise
            if not reply:
                raise Empty
            queue = bytes_to_str(reply[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)  # type: ignore[attr-defined]
            if (message := self._message_of(reply[1])) is None:
                log.error("foreign message dropped queue=%s bytes=%d", queue, len(reply[1]))
            else:
                self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None

    def _message_of(self, data: bytes) -> dict[str, Any] | None:
        """Return a message with all that Celery reads of it outside of its own checks, None for anything else."""
        try:
            message = loads(bytes_to_str(data))
            headers, properties = message["headers"], message["properties"]
            texts = (headers["task"], headers["id"], message["body"], properties["delivery_tag"])
            info = properties["delivery_info"]
            types = (message.get("content-type"), message.get("content-encoding"))
            self.decode_body(message["body"], properties.get("body_encoding"))
        except UNREADABLE:
            return None
        is_usable = all(isinstance(text, str) for text in texts) and isinstance(info, dict)
        return message if is_usable and all(isinstance(kind, str) for kind in types) else None


class TolerantTransport(Transport):
    Channel = TolerantChannel


def drop_foreign_messages() -> None:
    """Use this transport for Redis in the process."""
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:{TolerantTransport.__name__}"
