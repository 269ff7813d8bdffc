"""Messages of a tenant's subscription, of which those that have arrived can be read ahead. Needs no Django."""

from collections import deque
from typing import TYPE_CHECKING, Any

from inference.gpu.protocol import channels

if TYPE_CHECKING:
    from redis.client import PubSub

GpuMessage = tuple[str, dict[str, Any]]  # its kind (the command, or the channel) and its fields


class MessageInbox:
    """The messages of one subscription, in order; for one thread."""

    def __init__(self, pubsub: "PubSub") -> None:
        self._pubsub = pubsub
        self._ahead: deque[GpuMessage] = deque()

    def next(self, timeout_secs: float) -> GpuMessage | None:
        return self._ahead.popleft() if self._ahead else self._receive(timeout_secs)

    def has_ended(self, session_id: str) -> bool:
        """Return whether the pause of a session is over by a message that waits: its resume, or the next pause."""
        while (message := self._receive(0.0)) is not None:
            self._ahead.append(message)
        for kind, fields in self._ahead:
            session = session_of(fields)
            # A resume of another session, or one without a name, may only be late.
            is_resumed = kind in channels.RESUMES and session == session_id
            is_next = kind in channels.PAUSES and "" not in (session, session_id) and session != session_id
            if is_resumed or is_next:
                return True
        return False

    def _receive(self, timeout_secs: float) -> GpuMessage | None:
        raw = self._pubsub.get_message(timeout=timeout_secs)
        if raw is None:
            return None
        channel, fields = raw["channel"].decode(), channels.decode(raw["data"]) or {}
        return (str(fields.get("command")) if channel == channels.COMMAND else channel), fields


def session_of(fields: dict[str, Any]) -> str:
    """Return the session of a message of either generation; empty without one."""
    return str(fields.get("session_id") or fields.get("task_id") or "")
