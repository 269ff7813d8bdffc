"""The figures of worker, runner and queue as Prometheus reads them: from the worker's last report and the rows.

Made anew for each reading, so that no process has counters of its own: those of the worker begin again with it, as
Prometheus expects. No label names a user, an address or a text.
"""

from collections.abc import Iterator

from django.db.models import Count
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.enums import UNFINISHED
from inference.models import Generation, Priority
from inference.monitoring.engine_metrics import EngineReport
from inference.monitoring.worker_report import WorkerReport, last_report

MIB = 1024 * 1024


def registry() -> CollectorRegistry:
    """Return a registry that reads everything when it is collected."""
    made = CollectorRegistry(auto_describe=False)
    made.register(ServiceCollector())
    return made


class ServiceCollector(Collector):
    """Yields the queue, and with a live worker its model, tokens, steps, cache and GPU."""

    def collect(self) -> Iterator[Metric]:
        yield queue_length()
        report = last_report()
        yield _gauge("gemma_worker_up", "Whether a worker has reported within the last seconds.", report is not None)
        if report is not None:
            yield from worker_metrics(report)
            yield from engine_metrics(report.engine)


def queue_length() -> Metric:
    """Return the unfinished generations by status and priority."""
    family = GaugeMetricFamily(
        "gemma_generations", "Unfinished generations by status and priority.", labels=["status", "priority"]
    )
    rows = Generation.objects.filter(status__in=UNFINISHED).order_by().values_list("status", "priority")
    counts = {(status, priority): n for status, priority, n in rows.annotate(n=Count("pk"))}
    for status in UNFINISHED:
        for priority in Priority:
            labels = [status.value, priority.name.lower()]
            family.add_metric(labels, counts.get((status.value, priority.value), 0))
    return family


def worker_metrics(report: WorkerReport) -> Iterator[Metric]:
    info = GaugeMetricFamily("gemma_model_info", "The model in use; always 1.", labels=["model"])
    info.add_metric([report.model_name], 1)
    yield info
    yield _gauge("gemma_model_loaded", "Whether the model is loaded.", report.model_loaded)
    yield _gauge("gemma_model_on_gpu", "Whether the model is on the GPU.", report.model_on_gpu)
    yield _gauge("gemma_context_tokens", "Size of the context, in tokens.", report.context_size)
    yield _counter("gemma_output_tokens", "Tokens of answers since the worker started.", report.n_tokens)
    yield _gauge("gemma_output_tokens_per_second", "Tokens of answers per second, just now.", report.tokens_per_second)
    if report.mean_run_secs is not None:
        yield _gauge("gemma_run_mean_seconds", "Mean time of recent answers in the worker.", report.mean_run_secs)
    if report.vram_total_mb is not None:
        yield _gauge("gemma_vram_total_bytes", "Memory of the GPU.", report.vram_total_mb * MIB)
    if report.vram_used_mb is not None:
        yield _gauge("gemma_vram_used_bytes", "Memory of the GPU in use by all programs.", report.vram_used_mb * MIB)


def engine_metrics(engine: EngineReport) -> Iterator[Metric]:
    yield _counter("gemma_engine_steps", "Steps of the runner since the worker started.", engine.n_steps)
    prompts = CounterMetricFamily(
        "gemma_prompt_tokens", "Tokens of prompts by whether they were computed or reused.", labels=["source"]
    )
    prompts.add_metric(["computed"], engine.n_prefill_tokens)
    prompts.add_metric(["cache"], engine.n_cached_tokens)
    yield prompts
    drafts = CounterMetricFamily("gemma_draft_tokens", "Draft tokens by outcome.", labels=["outcome"])
    drafts.add_metric(["accepted"], engine.n_right_tokens)
    drafts.add_metric(["rejected"], max(0, engine.n_guessed_tokens - engine.n_right_tokens))
    yield drafts
    yield _gauge("gemma_engine_step_mean_seconds", "Mean time of a recent step.", engine.mean_step_ms / 1000)
    yield _gauge(
        "gemma_engine_step_mean_sequences", "Mean number of sequences in a recent step.", engine.mean_step_sequences
    )
    yield _gauge("gemma_engine_waiting_sequences", "Sequences that wait for KV cells.", engine.n_waiting)
    cells = GaugeMetricFamily("gemma_kv_cells", "Cells of the KV cache by state.", labels=["state"])
    for state, n_cells in (("free", engine.cells_free), ("used", engine.cells_used), ("cached", engine.cells_cached)):
        cells.add_metric([state], n_cells)
    yield cells


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))
