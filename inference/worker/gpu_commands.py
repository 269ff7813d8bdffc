"""Telling the worker where the model should be: from a web process, over Redis, to the placement.

A command that nobody hears is lost; whoever sent it looks at the worker's report for what came of it.
"""

from typing import Protocol

import msgspec

from inference.errors import StoreUnavailable
from inference.runtime.redis_client import UNAVAILABLE_ERRORS, shared_client

GPU_COMMAND_CHANNEL = "gemma:card"


class GpuHoldCommand(msgspec.Struct, frozen=True, tag="hold"):
    """Bring the model to the card and keep it there for the session."""

    session_id: str
    secs: float


class SessionReleaseCommand(msgspec.Struct, frozen=True, tag="release_session"):
    """The session no longer keeps the card; an empty one means all."""

    session_id: str


class GpuYieldCommand(msgspec.Struct, frozen=True, tag="yield"):
    """Leave the card now."""

    reason: str


GpuCommand = GpuHoldCommand | SessionReleaseCommand | GpuYieldCommand


class GpuHolder(Protocol):
    """What a placement does with them; returns at once, in any thread."""

    def hold(self, session_id: str, secs: float) -> None: ...

    def release_session(self, session_id: str) -> None: ...

    def yield_gpu(self, reason: str) -> None: ...


def send(command: GpuCommand) -> bool:
    """False: no worker listens. Raises StoreUnavailable."""
    try:
        return shared_client().publish(GPU_COMMAND_CHANNEL, msgspec.json.encode(command)) > 0
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(str(error)) from error


def obey(holder: GpuHolder, data: bytes) -> None:
    """Raises msgspec.DecodeError for what is no command."""
    match msgspec.json.decode(data, type=GpuCommand):
        case GpuHoldCommand(session_id, secs):
            holder.hold(session_id, secs)
        case SessionReleaseCommand(session_id):
            holder.release_session(session_id)
        case GpuYieldCommand(reason):
            holder.yield_gpu(reason)
