"""The page of the model and the engine: file, context, memory, devices, and the costs of the latest steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from inference.config.from_settings import capped_context, requested_config
from inference.config.memory_budget import MemoryNeed
from inference.engine.backends.gguf_header import ModelHeader, check_model_file
from inference.engine.config import MEBIBYTE, BackendKind, EngineConfig
from inference.engine.errors import ModelFileError
from inference.engine.kv_cache.memory_estimate import kv_shape
from inference.monitoring.engine_metrics import EngineReport
from inference.monitoring.worker_report import WorkerReport, last_report

# Values of general.file_type, as llama.cpp numbers them (enum llama_ftype in llama.h).
QUANTISATIONS = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
}
Line = tuple[str, str]  # name, value with its unit


@dataclass(frozen=True)
class FactSection:
    title: str
    lines: list[Line]


def engine_page(request: HttpRequest, context: dict[str, object]) -> HttpResponse:
    config, report = requested_config(), last_report()
    header, problem = None, ""
    if config.backend is not BackendKind.FAKE:
        try:
            header = check_model_file(config.model_path)
        except ModelFileError as error:
            problem = str(error)
    sections = [
        FactSection("Model", list(_model_lines(config, header, report))),
        FactSection("Memory", list(_memory_lines(config, header, report))),
        FactSection("Devices", list(_device_lines(config, report)) if report else []),
        FactSection("Steps of the last half minute", list(_step_lines(report.engine)) if report else []),
        FactSection("Cache of prompts", list(_cache_lines(config, report.engine if report else None))),
    ]
    page = {
        "title": "Model and engine",
        "sections": [section for section in sections if section.lines],
        "problem": problem,
        "has_worker": report is not None,
    }
    return TemplateResponse(request, "admin/service/engine.html", {**context, **page})


def _model_lines(config: EngineConfig, header: ModelHeader | None, report: WorkerReport | None) -> Iterator[Line]:
    if report and report.model_name:
        yield "in use", report.model_name
    if header is None:
        yield "kind", "the scripted model, for tests" if config.backend is BackendKind.FAKE else "-"
        return
    yield "file", str(config.model_path)
    yield "size", _mb(Path(config.model_path).stat().st_size)
    yield "architecture", header.architecture or "-"
    yield "quantisation", quantisation(header)
    yield "tensors", f"{header.n_tensors:,}"
    shape = kv_shape(header)
    if shape:
        yield "layers", f"{shape.n_layers}, {shape.n_full_layers} of them with attention to the whole context"
    yield "trained for", f"{header.trained_context:,} tokens" if header.trained_context else "-"
    yield "context", f"{capped_context(config, header.trained_context):,} tokens for all answers together"


def quantisation(header: ModelHeader) -> str:
    """Return the name of the file's type; of a type without one its number."""
    number = header.numbers.get("general.file_type")
    if number is None:
        return "not stated by the file"
    return QUANTISATIONS.get(number, f"type {number}")


def _memory_lines(config: EngineConfig, header: ModelHeader | None, report: WorkerReport | None) -> Iterator[Line]:
    shape = kv_shape(header) if header else None
    if header and shape:
        need = MemoryNeed.of(config, header, shape)
        yield "weights", _mb(need.weights)
        yield "KV cache", f"{_mb(need.caches)} ({config.kv_type_k} and {config.kv_type_v})"
        yield "buffers, estimated", _mb(need.overhead)
    pid = report.runner_pid if report else None
    if pid is not None and (resident := _resident_bytes(pid)):
        yield "runner, resident", f"{_mb(resident)} (process {pid})"
    if report and report.vram_total_mb is not None:
        used = "-" if report.vram_used_mb is None else f"{report.vram_used_mb:,}"
        yield "graphics card", f"{used} of {report.vram_total_mb:,} MB in use, by all programs"


def _resident_bytes(pid: int) -> int | None:
    """Return the resident memory of a process of this machine; None when it runs on another."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmRSS:")), "")
    return int(line.split()[1]) * 1024 if line else None


def _device_lines(config: EngineConfig, report: WorkerReport) -> Iterator[Line]:
    yield "answers on", report.device.upper()
    yield "threads", str(config.threads)
    if report.card is None:
        yield "graphics card", "none to use"
    else:
        placement = report.placement
        yield "graphics card", report.card
        yield "state", str(placement.get("state", "-"))
        if reason := placement.get("reason"):
            yield "not on it because", str(reason)
        yield "layers on it", str(report.gpu_layers or settings.GEMMA_GPU_LAYERS)
        if fault := report.coordinator.get("fault"):
            yield "last fault of the lease", str(fault)
    yield "answers at once", str(config.parallel)
    yield "in work", str(report.active)
    yield "output", f"{report.tokens_per_second:.1f} tokens/s now, {report.n_tokens:,} since the worker started"
    if report.mean_run_secs is not None:
        yield "mean time of an answer", f"{report.mean_run_secs:.1f} s"


def _step_lines(engine: EngineReport) -> Iterator[Line]:
    yield "steps", f"{engine.n_steps:,} since the worker started"
    yield "time of a step", f"{engine.mean_step_ms:.1f} ms (budget {settings.GEMMA_STEP_BUDGET_MS:g} ms beside answers)"
    yield "answers in a step", f"{engine.mean_step_sequences:.1f}"
    yield "tokens in a step", f"{engine.mean_step_tokens:.1f} of at most {settings.GEMMA_BATCH_SIZE}"
    yield "computed", f"{engine.computed_tokens_per_second:,.0f} tokens a second of computing, prompts included"
    if engine.n_guessed_tokens:
        share = engine.n_right_tokens / engine.n_guessed_tokens
        yield "drafts accepted", f"{share:.0%} of {engine.n_guessed_tokens:,} tokens"
    if engine.n_waiting:
        yield "wait for room", f"{engine.n_waiting} answers"


def _cache_lines(config: EngineConfig, engine: EngineReport | None) -> Iterator[Line]:
    if engine is not None:
        yield (
            "reused",
            f"{engine.cache_hit_ratio:.0%} of the recent tokens of prompts, {engine.n_cached_tokens:,} in all",
        )
        if n_cells := engine.cells_used + engine.cells_cached + engine.cells_free:
            in_use, cached = f"{engine.cells_used:,} in use", f"{engine.cells_cached:,} kept"
            yield "cells", f"{in_use}, {cached}, {engine.cells_free:,} free of {n_cells:,}"
    yield "in RAM", f"at most {config.cache_ram_mb:,} MB"
    yield "on disk", f"at most {config.cache_disk_mb:,} MB"


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / MEBIBYTE:,.0f} MB"
