"""Answers of the built-in coordinator of the GPU, in both generations of its protocol, and of the commands that move
the model."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from chat.schemas.answer_types import ErrorObject
from inference.gpu.protocol.channels import PROTOCOL


class AcquireAnswer(Struct, frozen=True, kw_only=True):
    """``renew_within_ms`` is null for a lease that lasts until its release. ``protocol``: of the coordinator."""

    session_id: str
    wait_time_ms: float
    success: bool
    acquired_at: str | None
    error: str | None
    lease_epoch: int | UnsetType = UNSET  # the fields of a grant; a refusal has none
    renew_within_ms: int | UnsetType | None = UNSET
    protocol: int = PROTOCOL


class RenewAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    session_id: str
    lease_epoch: int | None
    renew_within_ms: int
    protocol: int = PROTOCOL


class ReleaseAnswer(Struct, frozen=True, kw_only=True):
    success: bool
    session_id: str
    released_at: str
    session_duration_ms: float


class WaitingTenant(Struct, frozen=True, kw_only=True):
    requester: str
    priority: int


class GpuStateAnswer(Struct, frozen=True, kw_only=True):
    """All but the two connections is null or missing while one of them is down."""

    owner: str | None
    session_id: str | None
    requester: str | None
    acquired_at: str | None
    state: str | None
    redis_connected: bool
    postgres_connected: bool  # the protocol's name for the database, whichever it is
    lease_epoch: int | UnsetType = UNSET
    waiting: list[WaitingTenant] | UnsetType = UNSET
    residents: int | UnsetType = UNSET
    protocol: int = PROTOCOL


class OldGrantAnswer(Struct, frozen=True, kw_only=True):
    task_id: str
    status: Literal["gpu_acquired"]
    message: str


class OldRefusalAnswer(Struct, frozen=True, kw_only=True):
    """A refusal in the first generation of the protocol, whose status is 500."""

    error: ErrorObject
    detail: str


class OldReleaseAnswer(Struct, frozen=True, kw_only=True):
    status: Literal["released"]
    task_id: str


class LockStatus(Struct, frozen=True, kw_only=True):
    state: str  # in the words of the first generation
    current_owner: str | None
    current_task: str | None
    timestamp: str


class ResidentsStatus(Struct, frozen=True, kw_only=True):
    residents: int


class TaskStats(Struct, frozen=True, kw_only=True):
    waiting: int
    granted: int


class OldStatusAnswer(Struct, frozen=True, kw_only=True):
    lock_status: LockStatus
    gpu_status: ResidentsStatus
    task_stats: TaskStats


class ResetAnswer(Struct, frozen=True, kw_only=True):
    status: Literal["reset"]
    lease_epoch: int


class WarmupAnswer(Struct, frozen=True, kw_only=True):
    """``reason`` says why the model is not on the GPU."""

    status: Literal["ready", "ready_cpu"]
    model_on_gpu: bool
    reason: str | None


class MoveToCpuAnswer(Struct, frozen=True, kw_only=True):
    status: Literal["success", "already_on_cpu"]
    model_on_gpu: bool


class ReleaseSessionAnswer(Struct, frozen=True, kw_only=True):
    status: Literal["released", "already_on_cpu"]
