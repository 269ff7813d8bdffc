"""Answers about the service itself: its index and its health."""

from typing import Literal, TypedDict

from msgspec import UNSET, Struct, UnsetType

HealthStatus = Literal["healthy", "degraded", "unhealthy"]


class ServiceIndexAnswer(Struct, frozen=True, kw_only=True):
    service: str
    endpoints: dict[str, str]


class DependencyAnswer(Struct, frozen=True, kw_only=True):
    """A dependency; ``ok`` is null, which is no fault, when none is configured."""

    ok: bool | None
    latency_ms: float | None
    detail: str
    breaker: str | UnsetType = UNSET


class GpuLeaseHealth(TypedDict, total=False):
    """The lease of the GPU as the worker sees it; ``fault`` is the error of the last request for one."""

    coordinator: str
    state: str
    detail: str
    breaker: str
    fault: str
    lease_epoch: int | None


class GpuHealth(TypedDict, total=False):
    """The GPU of the worker; ``reason``: why the model is not on it, empty when nothing prevents it."""

    name: str
    card: str
    state: str
    reason: str
    lease: GpuLeaseHealth


class HealthAnswer(Struct, frozen=True, kw_only=True):
    """``vram_*`` are missing on a machine without a GPU; numbers of the model are null while no worker reports."""

    status: HealthStatus
    model_loaded: bool
    model_on_gpu: bool
    model_name: str | None
    context_size: int | None
    trained_context: int | None
    kv_cache_mb: float | None
    gpu_layers: int | None
    queue_depth: int | None
    active: int | None
    gpu: GpuHealth | None
    vram_used_mb: int | UnsetType | None = UNSET
    vram_total_mb: int | UnsetType | None = UNSET
    database: DependencyAnswer
    redis: DependencyAnswer
    worker: DependencyAnswer
    gpu_coordinator: DependencyAnswer
    rag_service: DependencyAnswer
    chat_template: DependencyAnswer


class ProbeAnswer(Struct, frozen=True, kw_only=True):
    """An answer for probes; ``missing`` names the dependencies without which nothing can be answered."""

    status: Literal["live", "ready", "not_ready"]
    missing: list[str] = []
