"""Bodies and answers that clients of the surrounding stack know of its chat service, beside those of /chat."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from chat.schemas.answer_types import ChatAnswer
from chat.schemas.answers import answer
from chat.schemas.chat_bodies import ChatBody, as_chat_request
from chat.schemas.decoding import decode
from chat.schemas.filters import TopK
from chat.schemas.requests import ChatRequest
from chat.schemas.scalars import NonEmptyText
from inference.engine.config import KvType
from inference.models import Generation
from inference.monitoring.worker_report import WorkerHealth, WorkerReport

MEGABYTE = 1_000_000
CACHE_TYPES = {KvType.F16: "fp16", KvType.Q8_0: "q8_0", KvType.Q4_0: "q4_0"}


class RagChatBody(ChatBody, frozen=True, kw_only=True):
    """A chat turn that always searches the memories. ``query`` is a name of ``message``, ``top_k_results`` one of
    ``rag_top_k``."""

    query: NonEmptyText | None = None
    top_k_results: TopK | None = None

    @property
    def question(self) -> str | None:
        return self.message or (self.query if self.messages is None else None)

    @property
    def question_field(self) -> str:
        return "query" if self.question and not self.message else super().question_field


class RagChatAnswer(ChatAnswer, frozen=True, kw_only=True):
    """The body of POST /chat/rag: that of /chat, and its text under ``answer``, too."""

    answer: Annotated[str, Meta(description="The same as `response`.")]
    sources_count: int
    has_context: bool
    task_id: Annotated[str, Meta(description="The same as `generation_id`.")]


class ServiceStatsAnswer(Struct, frozen=True, kw_only=True):
    """The model and its queue; null is unknown while no worker reports, or where there is no GPU."""

    model_loaded: bool
    model_on_gpu: bool
    model_name: str | None
    gpu_layers: int | None
    context_size: int | None
    queue_depth: int
    active: int
    vram_used_mb: int | None
    vram_total_mb: int | None


class ModelChoice(Struct, frozen=True, kw_only=True):
    name: str
    description: str
    context_size: int | None
    size_mb: int | None


class ModelChoicesAnswer(Struct, frozen=True, kw_only=True):
    """The model that is served, the only one; it is chosen when the service starts."""

    models: list[ModelChoice]
    current_model: str | None
    cache_types: list[str]
    current_cache: str


class ServiceSettingsAnswer(Struct, frozen=True, kw_only=True):
    """Settings of the model, which environment variables choose when the service starts."""

    model_name: str | None
    context_size: int | None
    cache_type: str
    model_on_gpu: bool
    available_cache_types: list[str]
    available_context_sizes: list[int]


def rag_chat_request(data: object) -> ChatRequest:
    """Return the typed chat request. Raises InvalidRequest with the field's path, NotFound for an impossible id."""
    body = decode(RagChatBody, data)
    return as_chat_request(body, use_rag=True, top_k=body.rag_top_k or body.top_k_results)


def rag_answer(generation: Generation) -> dict[str, Any]:
    """Return the body of POST /chat/rag for an ended generation."""
    whole = answer(generation)
    more = {"answer": whole["response"], "task_id": whole["generation_id"], "sources_count": len(whole["sources"])}
    return whole | more | {"has_context": bool(whole["sources"])}


def service_stats(health: WorkerHealth) -> ServiceStatsAnswer:
    report = health.report or WorkerReport(pid=0)
    return ServiceStatsAnswer(
        model_loaded=report.model_loaded,
        model_on_gpu=report.model_on_gpu,
        model_name=report.model_name or None,
        gpu_layers=report.gpu_layers if health.report else None,
        context_size=report.context_size or None,
        queue_depth=health.queue_depth,
        active=health.active,
        vram_used_mb=report.vram_used_mb,
        vram_total_mb=report.vram_total_mb,
    )


def model_choices(report: WorkerReport | None, file: Path, kv_type: KvType) -> ModelChoicesAnswer:
    size_mb: int | None = None
    with suppress(OSError):  # the fake model has no file
        size_mb = file.stat().st_size // MEGABYTE
    models = [
        ModelChoice(
            name=report.model_name,
            description="the loaded model",
            context_size=report.context_size,
            size_mb=size_mb,
        )
        for report in ([report] if report and report.model_loaded else [])
    ]
    return ModelChoicesAnswer(
        models=models,
        current_model=models[0].name if models else None,
        cache_types=list(CACHE_TYPES.values()),
        current_cache=CACHE_TYPES[kv_type],
    )


def service_settings(report: WorkerReport | None, kv_type: KvType) -> ServiceSettingsAnswer:
    size = report.context_size if report and report.context_size else None
    return ServiceSettingsAnswer(
        model_name=report.model_name if report else None,
        context_size=size,
        cache_type=CACHE_TYPES[kv_type],
        model_on_gpu=bool(report and report.model_on_gpu),
        available_cache_types=list(CACHE_TYPES.values()),
        available_context_sizes=[size] if size else [],
    )
