"""Commands about the GPU from a web process to the worker, as messages in Redis.

A message without a subscriber is lost; its sender reads the effect from the worker's report.
"""

from typing import Protocol

import msgspec

from inference.errors import StoreUnavailable
from inference.runtime.redis_client import UNAVAILABLE_ERRORS, shared_client

GPU_COMMAND_CHANNEL = "gemma:card"


class GpuHoldCommand(msgspec.Struct, frozen=True, tag="hold"):
    """Move the model to the GPU and keep it there for the session."""

    session_id: str
    secs: float


class SessionReleaseCommand(msgspec.Struct, frozen=True, tag="release_session"):
    """End the session's hold on the GPU; an empty id ends all holds."""

    session_id: str


class GpuYieldCommand(msgspec.Struct, frozen=True, tag="yield"):
    """Leave the GPU now."""

    reason: str


GpuCommand = GpuHoldCommand | SessionReleaseCommand | GpuYieldCommand


class GpuHolder(Protocol):
    """The receiver of the commands: a dispatcher. Each call returns at once, in any thread."""

    def hold(self, session_id: str, secs: float) -> None: ...

    def release_session(self, session_id: str) -> None: ...

    def yield_gpu(self, reason: str) -> None: ...


def send(command: GpuCommand) -> bool:
    """Publish the command; False when no worker is subscribed. Raises StoreUnavailable."""
    try:
        return shared_client().publish(GPU_COMMAND_CHANNEL, msgspec.json.encode(command)) > 0
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(str(error)) from error


def execute(holder: GpuHolder, data: bytes) -> None:
    """Decode a message and call ``holder``. Raises msgspec.DecodeError."""
    match msgspec.json.decode(data, type=GpuCommand):
        case GpuHoldCommand(session_id, secs):
            holder.hold(session_id, secs)
        case SessionReleaseCommand(session_id):
            holder.release_session(session_id)
        case GpuYieldCommand(reason):
            holder.yield_gpu(reason)
