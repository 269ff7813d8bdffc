"""Record of one hand-over: the GPU was granted to us, used, and released. Knows no tables."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, kw_only=True)
class HandOverRecord:
    """A granted session, recorded at its end; requests that were withdrawn before a grant are not recorded.

    ``waited_ms``: from the request to the grant; ``loaded_ms``: from the grant until the runner was ready; ``moved_ms``
    and ``moved_bytes``: all moves to the GPU and back; ``held_secs``: from grant to release; ``taken_secs``: in which
    another tenant did without the GPU; ``yield_ms``: from the decision to leave until the GPU was free.
    """

    device_from: str
    device_to: str
    waited_ms: float
    ended_because: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))  # of the request
    loaded_ms: float | None = None
    moved_ms: float = 0.0
    moved_bytes: int = 0
    n_sequences: int = 0
    n_snapshots: int = 0
    held_secs: float = 0.0
    n_served: int = 0
    taken_secs: float = 0.0
    yield_ms: float | None = None
    lease_epoch: int = 0
    coordinator: str = ""
    is_simulated: bool = False


RecordHandOver = Callable[[HandOverRecord], None]
