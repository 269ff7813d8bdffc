"""Counts of the replies to one pause, on both sets of channels.

A listener is identified by service and instance where its acknowledgement has one. Several processes of a service that
send none are told apart by the number of their messages. Knows no Redis.
"""

from collections import Counter
from typing import Any

from inference.gpu.protocol import channels

Listener = tuple[str, str]  # service and instance; the latter may be empty


class PauseReplies:
    """``n_old_*`` and ``n_new_*``: listeners on the older and the newer channels that acknowledged, or have left."""

    def __init__(self, session_id: str) -> None:
        self.refusal: str | None = None
        self._session_id = session_id
        self._n_paused = 0
        self._paused_instances: set[str] = set()  # of listeners that name themselves, and repeat their reply
        self._n_freed_named = self._n_freed_unnamed = 0  # on the older channel, with our session and without
        self._offloading: Counter[Listener] = Counter()  # messages
        self._left: set[Listener] = set()

    @property
    def n_old_paused(self) -> int:
        return max(self._n_paused, self._n_freed_by_resident)

    @property
    def n_old_freed(self) -> int:
        # More than were paused are late ends of earlier pauses.
        return min(self._n_freed_by_resident + self._n_freed_unnamed, self.n_old_paused)

    @property
    def n_new_paused(self) -> int:
        return self._n_pending() + len(self._left)

    @property
    def n_new_freed(self) -> int:
        """Some listeners acknowledge on the newer channel that they begin to leave, and report the end on the older
        one: with the session, or without it when they also listen there, as only the transcription service does."""
        n_reported = min(self._n_freed_named, self._n_pending())
        return len(self._left) + (n_reported or min(self._n_freed_unnamed, self._n_pending(channels.RESIDENT)))

    @property
    def _n_freed_by_resident(self) -> int:
        return min(self._n_freed_named, self._n_pending(channels.RESIDENT))

    def _n_pending(self, service: str = "") -> int:
        """Count the listeners that have only begun to leave, by their last message on the newer channel."""
        return sum(
            n - (listener in self._left) for listener, n in self._offloading.items() if listener[0].startswith(service)
        )

    def add(self, channel: str, message: dict[str, Any]) -> None:
        """Count a message that was written after the pause."""
        session_id = message.get("session_id")
        if channel == channels.PAUSED:
            if message.get("status", "paused") != "paused":
                self.refusal = "the transcription service refused to pause"
            instance = str(message.get("instance") or "")
            self._n_paused += instance not in self._paused_instances
            self._paused_instances |= {instance} - {""}
        elif session_id == self._session_id:
            if channel == channels.FREED:
                self._n_freed_named += 1
            else:
                self._add_ack(str(message.get("service")), message)
        elif channel == channels.FREED and not session_id and self._n_freed_unnamed < self._n_paused:
            # Without a ``paused`` before it, this is the late end of an earlier pause.
            self._n_freed_unnamed += 1

    def _add_ack(self, service: str, message: dict[str, Any]) -> None:
        metadata = message.get("metadata")
        details = metadata if isinstance(metadata, dict) else {}
        listener = (service, str(details.get("instance") or ""))
        if message.get("ack_type") == "error":
            self.refusal = f"{service} could not leave the GPU"
        elif message.get("ack_type") == "paused" and details.get("offloading"):
            if not listener[1] or listener not in self._offloading:  # a repeated message of a known instance
                self._offloading[listener] += 1
        elif message.get("ack_type") == "paused":
            self._left.add(listener)
