"""Counts of the replies to one pause, on both sets of channels.

A listener is identified by service and instance where its reply has one. Several processes of a service that send none
are told apart by the number of their messages. Knows no Redis.
"""

from collections import Counter
from typing import Any

from inference.gpu.protocol import channels

Listener = tuple[str, str]  # service and instance; the latter may be empty


class PauseReplies:
    """``n_old_*`` and ``n_new_*``: listeners on the older and the newer channels that acknowledged, or have left."""

    def __init__(self, session_id: str) -> None:
        self.refusal: str | None = None
        self.n_unnamed = 0  # messages on the older channels that name neither session nor instance
        self._session_id = session_id
        self._n_paused = 0  # of listeners without an instance
        self._n_freed_named = self._n_freed_unnamed = 0  # of those, with our session and without
        self._paused_instances: set[str] = set()  # of listeners that name themselves, and repeat their reply
        self._freed_instances: set[str] = set()
        self._offloading: Counter[Listener] = Counter()  # messages
        self._left: set[Listener] = set()

    @property
    def n_old_paused(self) -> int:
        return len(self._paused_instances) + self._n_old_paused_unnamed

    @property
    def n_old_freed(self) -> int:
        # More than were paused are late ends of earlier pauses.
        n_freed = min(self._n_freed_by_resident + self._n_freed_unnamed, self._n_old_paused_unnamed)
        return len(self._freed_instances) + n_freed

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
    def n_old_unnamed(self) -> int:
        """Listeners that answered without an instance."""
        return self._n_old_paused_unnamed

    @property
    def n_new_unnamed(self) -> int:
        pending = sum(n for listener, n in self._offloading.items() if not listener[1] and listener not in self._left)
        return pending + sum(not instance for _, instance in self._left)

    @property
    def left_instances(self) -> set[str]:
        """Listeners with an instance that have left."""
        return self._freed_instances | {instance for _, instance in self._left}

    @property
    def is_balanced(self) -> bool:
        """Return whether each pause that was acknowledged without a name has also ended."""
        return self._n_freed_unnamed + self._n_freed_by_resident >= self._n_paused

    @property
    def _n_old_paused_unnamed(self) -> int:
        return max(self._n_paused, self._n_freed_by_resident)

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
        if channel in (channels.PAUSED, channels.FREED):
            if session_id and session_id != self._session_id:
                return  # a late reply to an earlier pause
            if channel == channels.PAUSED and message.get("status", "paused") != "paused":
                self.refusal = "the transcription service refused to pause"
            if instance := str(message.get("instance") or ""):
                (self._paused_instances if channel == channels.PAUSED else self._freed_instances).add(instance)
            else:
                self._add_old(channel, is_named=bool(session_id))
        elif session_id == self._session_id:
            self._add_ack(str(message.get("service")), message)

    def _add_old(self, channel: str, *, is_named: bool) -> None:
        self.n_unnamed += not is_named
        if channel == channels.PAUSED:
            self._n_paused += 1
        elif is_named:
            self._n_freed_named += 1
        elif self._n_freed_unnamed < self._n_paused:
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
