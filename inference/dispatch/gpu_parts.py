"""The collaborators and the policy with which a dispatcher uses a GPU."""

from collections.abc import Callable
from dataclasses import dataclass, field

from inference.dispatch.runner_launcher import RunnerFactory
from inference.dispatch.state_folder import StateFolder
from inference.gpu.device.port import GpuDevice
from inference.gpu.lease.port import LeaseClient, Post
from inference.gpu.records.hand_over import RecordHandOver

# After a session of full length, other tenants have the GPU for this part of it.
REST_PER_HOLD = 0.25


@dataclass(frozen=True, kw_only=True)
class GpuPolicy:
    min_hold_secs: float = 5.0
    max_hold_secs: float = 120.0
    linger_secs: float = 10.0
    # After it, sequences that have not moved are computed from their tokens: the other tenant waits.
    yield_patience_secs: float = 2.0

    @property
    def rest_secs(self) -> float:
        return self.max_hold_secs * REST_PER_HOLD

    def reason_to_leave(self, *, held_secs: float, idle_secs: float, is_held: bool, is_wanted: bool) -> str | None:
        """``idle_secs``: since the last answer ended; ``is_held``: by a session; ``is_wanted``: by other tenants."""
        if held_secs >= self.max_hold_secs and is_wanted:
            return f"held for {held_secs:.0f} s (GPU_MAX_HOLD_SECS)"
        if idle_secs >= self.linger_secs and held_secs >= self.min_hold_secs and not is_held:
            return f"no work for {idle_secs:.0f} s (GPU_LINGER_SECS)"
        return None


@dataclass(frozen=True, kw_only=True)
class GpuParts:
    """``obstacle`` returns why the GPU cannot be used at all, or None."""

    device: GpuDevice
    make_runner: RunnerFactory
    make_lease_client: Callable[[Post], LeaseClient]
    record: RecordHandOver
    folder: StateFolder
    obstacle: Callable[[], str | None] = lambda: None
    policy: GpuPolicy = field(default_factory=GpuPolicy)
    is_simulated: bool = False
