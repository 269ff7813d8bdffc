"""Replies of a tenant to the coordinator, on both sets of channels. Needs no Django."""

from typing import TYPE_CHECKING

from inference.gpu.protocol import channels

if TYPE_CHECKING:
    import redis


class ReplySender:
    """``instance`` tells several processes of one service apart."""

    def __init__(self, client: "redis.Redis[bytes]", service: str, instance: str) -> None:
        self._redis = client
        self._service = service
        self._instance = instance

    def begin_to_leave(self, session_id: str) -> None:
        self._publish_old(channels.PAUSED, "paused", session_id, offloading=True, queued_chunks=0)
        self.answer("paused", session_id, offloading=True)

    def have_left(self, session_id: str) -> None:
        # Again, for a coordinator that has dropped the first one.
        self._publish_old(channels.PAUSED, "paused", session_id, offloading=True, queued_chunks=0)
        self._publish_old(channels.FREED, "freed", session_id)
        self.answer("paused", session_id)

    def answer(self, ack_type: str, session_id: str, *, error: str | None = None, **metadata: object) -> None:
        """Send an acknowledgement on the newer channel alone."""
        details = metadata | {"instance": self._instance}
        message = channels.ack(ack_type, service=self._service, session_id=session_id, error=error, metadata=details)
        self._redis.publish(channels.ack_channel(self._service), message)

    def _publish_old(self, channel: str, status: str, session_id: str, **more: object) -> None:
        fields = {"status": status, "session_id": session_id, "instance": self._instance, **more}
        self._redis.publish(channel, channels.encode(fields))
