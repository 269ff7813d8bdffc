"""Bodies that tenants of the GPU send to the built-in coordinator, in both generations of its protocol."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from chat.schemas.decoding import decode
from chat.schemas.scalars import NonEmptyText
from inference.gpu.protocol import channels

MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 120_000
DEFAULT_TIMEOUT_MS = 30_000

SessionId = Annotated[NonEmptyText, Meta(max_length=128)]
Requester = Annotated[NonEmptyText, Meta(max_length=64)]


class SessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """A session of a tenant."""

    session_id: SessionId
    requester: Requester | None = None


class AcquireBody(SessionBody, frozen=True, kw_only=True):
    """A request for the GPU. ``metadata: {"renews": true}`` promises to renew the lease."""

    priority: Annotated[int, Meta(ge=1, le=2, description="1: immediate, 2: background.")] | None = None
    timeout_ms: Annotated[int, Meta(ge=MIN_TIMEOUT_MS, le=MAX_TIMEOUT_MS)] | None = None
    metadata: dict[str, Any] | None = None


class TaskBody(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the GPU in the first generation of the protocol."""

    task_id: SessionId


class OptionalSessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ``/warmup`` and ``/release-session``."""

    session_id: SessionId | None = None


@dataclass(frozen=True)
class AcquireRequest:
    session_id: str
    requester: str
    priority: int
    timeout_secs: float
    renews: bool  # it promises to renew; a lease without this lasts until its release
    protocol: int = channels.FIRST_PROTOCOL  # version of its library


def acquire_request(data: dict[str, Any]) -> AcquireRequest:
    body = decode(AcquireBody, data)
    metadata = body.metadata or {}
    return AcquireRequest(
        session_id=body.session_id,
        requester=body.requester or channels.OUR_SERVICE,
        priority=body.priority or 1,
        timeout_secs=(body.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000,
        renews=metadata.get("renews") is True,
        protocol=channels.protocol_of(metadata),
    )


def session_of(data: dict[str, Any]) -> str:
    return decode(SessionBody, data).session_id


def task_of(data: dict[str, Any]) -> str:
    return decode(TaskBody, data).task_id


def chosen_session(data: dict[str, Any]) -> str:
    """Return the session that the caller names, or an empty text."""
    return decode(OptionalSessionBody, data).session_id or ""
