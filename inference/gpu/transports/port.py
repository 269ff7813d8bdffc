"""What a lease client needs of a coordinator. Every call blocks; one call at a time but for ``withdraw``.

CoordinatorFault      nothing was granted, and the coordinator is at fault: down, hanging, garbage
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class CoordinatorFault(Exception):
    """The coordinator did not do its work; the text is fit for users."""


@dataclass(frozen=True)
class Grant:
    epoch: int  # 0: this coordinator counts none
    coordinator: str  # who granted it, as in ``Lease.coordinator``


@dataclass(frozen=True)
class Denial:
    """Not granted. ``in_doubt``: it may have been, and only the answer was lost."""

    reason: str
    in_doubt: bool = False


OnWait = Callable[[str], None]


class Coordinator(Protocol):
    @property
    def renew_secs(self) -> float:
        """How often to ``look`` while the card is held."""

    @property
    def lost_after_secs(self) -> float | None:
        """How long looks may fail before the lease counts as lost; None: as long as they like."""

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        """Wait for the card; ``on_wait`` is told for what, where that is known. Raises CoordinatorFault."""

    def withdraw(self, session_id: str) -> None:
        """From another thread: nobody waits for ``acquire`` any more. It may go on until its own timeout."""

    def renew(self, session_id: str) -> str | None:
        """Whether the card is still ours, renewing that where it can be renewed: None, or who else has it.
        Raises CoordinatorFault."""

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        """Give it back; also what was never granted as far as we know. Raises CoordinatorFault."""

    def close(self) -> None: ...

    @property
    def kind(self) -> str:
        """For /health: ``builtin``, ``v2`` or ``v1``."""
