"""Events for the dispatcher's thread, from tasks, from the threads of runners, and from the lease client."""

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
    """``ending`` None: the claim is lost. ``epoch`` None: a claim of any epoch."""

    generation_id: UUID
    ending: Ending | None
    epoch: int | None = None


@dataclass(frozen=True)
class HoldGpu:
    """A session wants the GPU for ``secs`` from now, and again from the end of each of its generations."""

    session_id: str
    secs: float


@dataclass(frozen=True)
class ReleaseHold:
    """The session no longer holds the GPU; an empty id means all sessions."""

    session_id: str


@dataclass(frozen=True)
class YieldGpu:
    """Leave the GPU now, and request it again only for new work."""

    reason: str


@dataclass(frozen=True)
class ReleaseAll:
    """This worker stops: release every active generation and accept no more."""


@dataclass(frozen=True)
class Shutdown:
    """The last event. ``spare_secs``: time beyond the usual in which the runner may save states."""

    spare_secs: float = 0.0


@dataclass(frozen=True)
class PurgeStates:
    """Have every runner remove the states of the order's owners."""

    order: PurgeOrder


GpuCommand = HoldGpu | ReleaseHold | YieldGpu
Event = AddGeneration | StopGeneration | GpuCommand | PurgeStates | ReleaseAll | Shutdown | LaunchEvent | LeaseEvent
