"""The collaborators with which a dispatcher uses a GPU."""

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
    """``obstacle`` returns why the GPU cannot be used at all, or None."""

    device: GpuDevice
    make_runner: RunnerFactory
    make_lease_client: Callable[[Post], LeaseClient]
    record: RecordHandOver
    folder: StateFolder
    obstacle: Callable[[], str | None] = lambda: None
    policy: GpuPolicy = field(default_factory=GpuPolicy)
    is_simulated: bool = False
