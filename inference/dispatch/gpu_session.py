"""A session of the model on the GPU, from the lease request to the release, and its record. Knows no rows."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from inference.engine.protocol.frames import Exported
from inference.gpu.lease.port import Lease
from inference.gpu.records.hand_over import HandOverRecord

CPU, GPU = "cpu", "gpu"


@dataclass
class MoveTotals:
    """All moves of a session, to the GPU and back."""

    n_sequences: int = 0
    n_snapshots: int = 0
    n_bytes: int = 0
    ms: float = 0.0

    def add_sequences(self, exported: Exported) -> None:
        self.n_sequences += len(exported.sequences)
        self.n_bytes += sum(sequence.n_bytes for sequence in exported.sequences)
        self.ms += exported.ms

    def add_copies(self, n_bytes: int, ms: float) -> None:
        self.n_bytes += n_bytes
        self.ms += ms

    def add_import(self, n_states: int, ms: float) -> None:
        self.n_snapshots += n_states
        self.ms += ms


@dataclass
class GpuSession:
    """Every ``_at`` is on the dispatcher's clock; ``ticket`` is one of the circuit breaker."""

    requested_at: float
    ticket: int
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    lease: Lease | None = None
    granted_at: float | None = None
    ready_at: float | None = None
    leave_at: float | None = None
    ended_because: str = ""
    has_failed: bool = False  # the GPU's runner exited by itself, or did not start
    moves: MoveTotals = field(default_factory=MoveTotals)
    n_ended_before: int = 0  # generations that had ended when the GPU began to accept work
    n_served: int = 0
    taken_secs: float = 0.0  # of the session, in which another tenant did without the GPU
    tenants_seen_at: float = 0.0

    def note_tenants(self, now: float, *, are_waiting: bool) -> None:
        """Count the time since the last call as taken from other tenants, if there are any that want the GPU."""
        if self.granted_at is None:
            return
        if are_waiting:
            self.taken_secs += now - max(self.granted_at, self.tenants_seen_at)
        self.tenants_seen_at = now

    def leave(self, reason: str, now: float) -> None:
        """Note the first reason; later ones are its consequences."""
        if self.leave_at is None:
            self.leave_at, self.ended_because = now, reason

    def held_secs(self, now: float) -> float:
        return 0.0 if self.granted_at is None else now - self.granted_at

    def record(self, now: float, *, is_simulated: bool) -> HandOverRecord:
        lease, moves = self.lease, self.moves
        return HandOverRecord(
            started_at=self.started_at,
            device_from=CPU,
            device_to=CPU if self.ready_at is None else GPU,
            waited_ms=_ms(self.requested_at, self.granted_at) or 0.0,
            loaded_ms=_ms(self.granted_at, self.ready_at),
            moved_ms=moves.ms,
            moved_bytes=moves.n_bytes,
            n_sequences=moves.n_sequences,
            n_snapshots=moves.n_snapshots,
            held_secs=self.held_secs(now),
            n_served=self.n_served,
            taken_secs=self.taken_secs,
            ended_because=self.ended_because,
            yield_ms=_ms(self.leave_at, now),
            lease_epoch=lease.epoch if lease else 0,
            coordinator=lease.coordinator if lease else "",
            is_simulated=is_simulated,
        )


def _ms(since: float | None, until: float | None) -> float | None:
    return None if since is None or until is None else (until - since) * 1000
