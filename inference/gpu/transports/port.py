"""Interface of a coordinator to the lease client. Every call blocks; one call at a time, except ``withdraw``.

CoordinatorFault      nothing was granted, and the coordinator is at fault: down, hanging, or answering garbage
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class CoordinatorFault(Exception):
    """The coordinator failed; the text may be shown to users."""


@dataclass(frozen=True)
class Grant:
    epoch: int  # 0: this coordinator counts none
    coordinator: str  # as in ``Lease.coordinator``


@dataclass(frozen=True)
class Denial:
    """Not granted. ``in_doubt``: it may have been, and only the answer was lost."""

    reason: str
    in_doubt: bool = False


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
        """Release the lease, also one whose grant may have been lost. Raises CoordinatorFault."""

    def close(self) -> None: ...

    @property
    def kind(self) -> str:
        """For /health: ``builtin``, ``v2`` or ``v1``."""
