"""What the placement's thread is told: by tasks, by the threads of runners, by the lease's lease_client."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from inference.dispatch.cache_purge import PurgeOrder
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.runner_launcher import LaunchEvent
from inference.gpu.lease.port import LeaseEvent
from inference.queue.results import Ending
from inference.token_stream.entries import AnyEntry

Sink = Callable[[Sequence[tuple[ActiveGeneration, AnyEntry]]], None]  # entries of one step, in order


@dataclass(frozen=True)
class AddGeneration:
    generation: ActiveGeneration


@dataclass(frozen=True)
class StopGeneration:
    """``ending`` None means that the claim with ``epoch`` is lost; without an epoch it is about any claim."""

    generation_id: UUID
    ending: Ending | None
    epoch: int | None = None


@dataclass(frozen=True)
class HoldGpu:
    """A session wants the card for ``secs`` from now, and from each of its generations' ends."""

    session_id: str
    secs: float


@dataclass(frozen=True)
class ReleaseHold:
    """That session (all of them when empty) no longer keeps the card."""

    session_id: str


@dataclass(frozen=True)
class YieldGpu:
    """Leave the card now, and do not ask for it before there is new work."""

    reason: str


@dataclass(frozen=True)
class ReleaseAll:
    """This worker stops: hand back whatever generations, and take nothing more."""


@dataclass(frozen=True)
class Shutdown:
    """The last event. ``spare_secs``: how much longer than usual the runner may save states."""

    spare_secs: float = 0.0


@dataclass(frozen=True)
class PurgeStates:
    """No runner may keep states of the order's owners."""

    order: PurgeOrder


GpuCommand = HoldGpu | ReleaseHold | YieldGpu
Event = AddGeneration | StopGeneration | GpuCommand | PurgeStates | ReleaseAll | Shutdown | LaunchEvent | LeaseEvent
