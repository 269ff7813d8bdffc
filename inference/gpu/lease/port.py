"""The lease of the GPU, the events about it, and the contract of a lease client.

Knows no coordinator, no Django and no runner. ``fake`` implements the same contract without a coordinator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Lease:
    """A grant. ``epoch`` grows from grant to grant of a coordinator; 0 when the coordinator counts none."""

    session_id: str
    epoch: int
    granted_at: float  # monotonic
    waited_secs: float
    coordinator: str  # "builtin", "v2" or "v1"


@dataclass(frozen=True)
class LeaseGranted:
    """The GPU may be used from now on."""

    lease: Lease


@dataclass(frozen=True)
class LeaseRefused:
    """Not granted yet. The client asks again after ``retry_in_secs`` while the request stands; 0: it waits in the
    coordinator's queue."""

    reason: str  # for users: "the transcription service did not free the GPU"
    retry_in_secs: float


@dataclass(frozen=True)
class LeaseRecalled:
    """Another tenant wants the GPU: leave it, then ``release``."""

    lease: Lease
    reason: str


@dataclass(frozen=True)
class LeaseLost:
    """The GPU may no longer be used: stop at once. ``release`` is still due."""

    lease: Lease
    reason: str


LeaseEvent = LeaseGranted | LeaseRefused | LeaseRecalled | LeaseLost
Post = Callable[[LeaseEvent], None]  # called from the lease client's thread; must not block


class LeaseClient(Protocol):
    """Posts events from a thread of its own; every method returns at once, in any thread.

    At most one lease is held or requested at a time. Between ``LeaseGranted`` and ``release`` nothing more is granted,
    even after a loss or a recall. No event about a lease follows its ``release``.
    """

    @property
    def is_wanted_elsewhere(self) -> bool:
        """True when other tenants were last seen to use the GPU or to wait for it, or when that is unknown."""

    def begin(self) -> None: ...

    def request(self, *, priority: int, session_ids: frozenset[str]) -> None:
        """Request the GPU (priority 1: interactive, 2: batch) until ``withdraw`` or a grant.

        ``session_ids`` name the clients it is for; a coordinator lists them. A repeated call changes the request; while
        a lease is held it has no effect. After ``release`` a new request is needed.
        """

    def withdraw(self) -> None:
        """End the request; a grant that is on its way is released."""

    def release(self, lease: Lease, result: Mapping[str, Any]) -> None:
        """Release AFTER the GPU runner's process has ended and its memory is free. A second call has no effect."""

    def end(self, timeout_secs: float) -> None:
        """Withdraw the request, release the lease if it is held, and stop the thread."""

    def describe(self) -> dict[str, Any]:
        """For /health: ``coordinator``, ``state`` (idle, waiting, refused, held), ``detail``; no addresses."""
