"""The lease: the right to use the GPU for a while, and what its lease_client tells the placement about it.

Knows no coordinator, no Django and no runner. ``fake_keeper`` obeys the same contract without a coordinator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Lease:
    """One grant. ``epoch`` grows from grant to grant of one coordinator; 0 when it has none (an outside one)."""

    session_id: str
    epoch: int
    granted_at: float  # monotonic
    waited_secs: float
    coordinator: str  # "builtin", "v2" or "v1"


@dataclass(frozen=True)
class LeaseGranted:
    """The card is ours from now on; it was asked for with ``want``."""

    lease: Lease


@dataclass(frozen=True)
class LeaseRefused:
    """Not granted yet. The client asks again after ``retry_in_secs`` while the request stands; 0: it waits in the
    coordinator's queue."""

    reason: str  # for users: "the transcription service did not give the GPU free"
    retry_in_secs: float


@dataclass(frozen=True)
class LeaseRecalled:
    """Somebody else wants the card: yield now, then ``release``."""

    lease: Lease
    reason: str


@dataclass(frozen=True)
class LeaseLost:
    """The card is no longer ours: stop using it at once. There is nothing to wait for, but ``release`` is still due."""

    lease: Lease
    reason: str


LeaseEvent = LeaseGranted | LeaseRefused | LeaseRecalled | LeaseLost
Post = Callable[[LeaseEvent], None]  # called from the keeper's thread; must not block


class LeaseClient(Protocol):
    """Speaks to the coordinator in a thread of its own and posts events; every method returns at once, in any thread.

    At most one lease is held or asked for at a time. Between ``LeaseGranted`` and ``release`` nothing more is granted,
    whatever was lost or wanted meanwhile. No event about a lease comes after its ``release`` was taken in.
    """

    def begin(self) -> None: ...

    def request(self, *, priority: int, session_ids: frozenset[str]) -> None:
        """Ask for the card (1: people wait for it, 2: batch work), until ``unwant`` or a grant.

        ``session_ids`` are those of the callers that it is for, so that a coordinator's list shows whom it serves.
        Called again, it changes what is asked for; while a lease is held it says nothing. After ``release`` the card
        must be wanted anew.
        """

    def withdraw(self) -> None:
        """Nothing needs the card any more. A request on its way is withdrawn: what it may yet be granted goes back."""

    def release(self, lease: Lease, result: Mapping[str, Any]) -> None:
        """Give the card back, AFTER the GPU runner's process has ended and its memory is free. Twice does no harm."""

    def end(self, timeout_secs: float) -> None:
        """Withdraw, give back what is still held, and stop the thread."""

    def describe(self) -> dict[str, Any]:
        """For /health: ``coordinator``, ``state`` (idle, waiting, refused, held), ``detail``; no addresses."""
