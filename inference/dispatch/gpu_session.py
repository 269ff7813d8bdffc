"""One session of the model on the GPU, from the lease request to the release, and its record. Knows no rows."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from inference.engine.protocol.frames import Exported
from inference.gpu.lease.port import Lease
from inference.gpu.records.hand_over import HandOverRecord

CPU, GPU = "cpu", "gpu"


@dataclass
class GpuSession:
    """Every ``_at`` is on the placement's clock."""

    asked_at: float
    ticket: int  # of the breaker
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    lease: Lease | None = None
    granted_at: float | None = None
    ready_at: float | None = None
    leave_at: float | None = None
    ended_because: str = ""
    has_failed: bool = False  # the card's runner died, or did not start
    n_sequences: int = 0
    n_snapshots: int = 0
    moved_bytes: int = 0
    moved_ms: float = 0.0
    n_ended_before: int = 0  # answers that had ended when it began to take work
    n_served: int = 0

    def leave(self, because: str, now: float) -> None:
        """The first reason is the one that counts."""
        if self.leave_at is None:
            self.leave_at, self.ended_because = now, because

    def moved(self, exported: Exported) -> None:
        self.n_sequences += len(exported.sequences)
        self.moved_bytes += sum(each.n_bytes for each in exported.sequences)
        self.moved_ms += exported.ms

    def copied(self, n_bytes: int, ms: float) -> None:
        self.moved_bytes += n_bytes
        self.moved_ms += ms

    def held_secs(self, now: float) -> float:
        return 0.0 if self.granted_at is None else now - self.granted_at

    def record(self, now: float, *, is_simulated: bool) -> HandOverRecord:
        lease = self.lease
        held_secs = self.held_secs(now)
        return HandOverRecord(
            started_at=self.started_at,
            device_from=CPU,
            device_to=CPU if self.ready_at is None else GPU,
            waited_ms=_ms(self.asked_at, self.granted_at) or 0.0,
            loaded_ms=_ms(self.granted_at, self.ready_at),
            moved_ms=self.moved_ms,
            moved_bytes=self.moved_bytes,
            n_sequences=self.n_sequences,
            n_snapshots=self.n_snapshots,
            held_secs=held_secs,
            n_served=self.n_served,
            taken_secs=held_secs,
            ended_because=self.ended_because,
            yield_ms=_ms(self.leave_at, now),
            lease_epoch=lease.epoch if lease else 0,
            coordinator=lease.coordinator if lease else "",
            is_simulated=is_simulated,
        )


def _ms(since: float | None, until: float | None) -> float | None:
    return None if since is None or until is None else (until - since) * 1000
