"""What is kept of one hand-over: the card came to us, was used, and went back. Knows no tables."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, kw_only=True)
class HandOverRecord:
    """One grant of the card, told when it is over. Requests that were withdrawn before one are none.

    ``waited_ms``: from asking to the grant; ``loaded_ms``: from the grant until the runner was ready; ``moved_ms`` and
    ``moved_bytes``: all moves to the card and back together; ``held_secs``: from grant to release; ``taken_secs``: how
    long another tenant did without the card for it; ``yield_ms``: from being asked to leave until the card was free.
    """

    device_from: str
    device_to: str
    waited_ms: float
    ended_because: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))  # when it was asked for
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
