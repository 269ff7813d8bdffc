"""Interface of a coordinator to the lease client. Every call blocks; one call at a time, except ``withdraw``.

CoordinatorFault      nothing was granted, and the coordinator is at fault: down, hanging, or sending invalid answers
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class CoordinatorFault(Exception):
    """The coordinator failed; the text may be shown to users. ``in_doubt``: the call may have had its effect."""

    def __init__(self, message: str, *, in_doubt: bool = True) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt


@dataclass(frozen=True)
class Grant:
    """``not_before``: a time before the grant, on the monotonic clock, from which its lifetime is counted; None at
    coordinators whose leases have none."""

    epoch: int  # 0: this coordinator counts none
    coordinator: str  # as in ``Lease.coordinator``
    not_before: float | None = None


@dataclass(frozen=True)
class Denial:
    """Not granted. ``in_doubt``: it may have been, and only the answer was lost. ``leaves_paused``: the residents may
    still be paused for the session, until it is released."""

    reason: str
    in_doubt: bool = False
    leaves_paused: bool = False


class SessionRecords(Protocol):
    """Records of the sessions at an outside coordinator. Only ``add`` raises: DatabaseError, OSError."""

    def add(self, session_id: str) -> None:
        """Record a session before the coordinator is asked for it."""

    def remove(self, session_id: str) -> None:
        """Remove a session that is released, or was never granted."""

    def hand_over(self, session_id: str) -> None:
        """Leave a released session that may still be granted to the reaper of any process."""

    def mark_release(self, session_id: str, *, is_under_way: bool) -> None:
        """Mark a session whose release is sent, or remove the mark. It ends by itself after a while."""

    def is_release_under_way(self) -> bool:
        """Return whether a session of any process has that mark. Raises DatabaseError."""

    def beat(self) -> None:
        """Show that this process runs; to be called more often than once a minute while it has sessions."""


OnWait = Callable[[str], None]


class Coordinator(Protocol):
    @property
    def renew_secs(self) -> float:
        """Interval of ``renew`` while the lease is held."""

    @property
    def lost_after_secs(self) -> float | None:
        """Seconds of failed renewals until the lease counts as lost; None: never."""

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        """Wait for the GPU; ``on_wait`` gets the reason of the wait, if known. Raises CoordinatorFault."""

    def withdraw(self, session_id: str) -> None:
        """Give up the ``acquire`` of another thread, which may still go on until its own timeout."""

    def renew(self, session_id: str) -> str | None:
        """Renew the lease where the protocol can, and check it; return why it is lost, or None.
        Raises CoordinatorFault."""

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        """Release the lease, also one whose grant may have been lost; of another session's lease nothing changes.
        Raises CoordinatorFault."""

    def close(self) -> None: ...

    @property
    def kind(self) -> str:
        """For /health: ``builtin``, ``v2`` or ``v1``."""
