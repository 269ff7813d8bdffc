"""The worker's report about itself, put together from its dispatcher, claims and GPU for other processes."""

import os
import time
from collections.abc import Callable

from inference.config.from_settings import requested_config
from inference.config.memory_budget import kv_cache_mb
from inference.dispatch import Dispatcher
from inference.errors import GpuUnavailable
from inference.gpu.device.port import GpuDevice
from inference.monitoring import worker_report
from inference.monitoring.worker_report import WorkerReport
from inference.worker.claim_runner import ClaimRunner


class StatusReporter:
    def __init__(
        self,
        worker_name: str,
        dispatcher: Dispatcher,
        claims: ClaimRunner,
        *,
        gpu: GpuDevice | None,
        n_gpu_commands: Callable[[], int],
    ) -> None:
        self._worker_name = worker_name
        self._dispatcher = dispatcher
        self._claims = claims
        self._gpu = gpu
        self._n_gpu_commands = n_gpu_commands
        self._previous = (time.monotonic(), 0)

    def report_once(self) -> None:
        """Publish a report. Raises RedisError."""
        worker_report.publish(self.report())

    def report(self) -> WorkerReport:
        ready, placement, gpu = self._dispatcher.ready, self._dispatcher.describe(), self._gpu
        now, n_tokens = time.monotonic(), self._dispatcher.n_tokens
        (previous_at, n_previous), self._previous = self._previous, (now, n_tokens)
        return WorkerReport(
            pid=os.getpid(),
            name=self._worker_name,
            model_name=ready.model_name if ready else "",
            context_size=ready.context_size if ready else 0,
            trained_context=ready.trained_context if ready else 0,
            kv_cache_mb=kv_cache_mb(requested_config()) if ready else None,
            gpu_layers=ready.gpu_layers if ready else 0,
            model_loaded=ready is not None,
            runner_pid=self._dispatcher.runner_pid,
            active=len(self._claims.active),
            n_tokens=n_tokens,
            tokens_per_second=round((n_tokens - n_previous) / max(0.001, now - previous_at), 1),
            mean_run_secs=self._claims.mean_run_secs,
            engine=self._dispatcher.meter.report(),
            model_on_gpu=self._dispatcher.device == "gpu",
            device=self._dispatcher.device,
            card=placement["card"],
            vram_used_mb=_vram_used_mb(gpu, self._dispatcher.gpu_pid) if gpu else None,
            vram_total_mb=gpu.total_mb if gpu else None,
            placement=placement,
            coordinator=self._dispatcher.describe_lease_client(),
            n_card_commands=self._n_gpu_commands(),
        )


def _vram_used_mb(gpu: GpuDevice, pid: int | None) -> int | None:
    """MB in use by all processes; of a simulated GPU our runner's. None when the driver does not answer."""
    try:
        runner_mb = 0 if pid is None else gpu.vram_used_mb_of([pid])
        return max(runner_mb, gpu.total_mb - gpu.free_mb)
    except GpuUnavailable:
        return None
