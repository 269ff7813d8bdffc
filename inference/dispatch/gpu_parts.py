"""What a placement is given to use a card with. Knows how none of it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field

from inference.dispatch.policy import GpuPolicy
from inference.dispatch.runner_launcher import RunnerFactory
from inference.dispatch.state_folder import StateFolder
from inference.gpu.device.port import GpuDevice
from inference.gpu.lease.port import LeaseClient, Post
from inference.gpu.records.hand_over import RecordHandOver


@dataclass(frozen=True, kw_only=True)
class GpuParts:
    card: GpuDevice
    make_runner: RunnerFactory
    make_lease_client: Callable[[Post], LeaseClient]
    record: RecordHandOver  # may wait for a database: called in a thread of its own
    folder: StateFolder
    obstacle: Callable[[], str | None] = lambda: None  # why this card cannot be used at all, if so
    policy: GpuPolicy = field(default_factory=GpuPolicy)
    is_simulated: bool = False
