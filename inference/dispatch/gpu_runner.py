"""Runners on the GPU, with as many layers as fit and the lock of the device; in a simulation a second CPU runner.

Made while the lease is ours, so that the free memory of the device may be taken. Knows no lease and no dispatcher.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from inference.config.engine_config import engine_config
from inference.config.memory_budget import gpu_memory_shortage, layers_that_fit
from inference.dispatch.runner_launcher import OnExit, OnFrame, Runner
from inference.engine.config import BackendKind, Device, EngineConfig
from inference.engine.errors import BackendError, ModelFileError, RunnerStartError
from inference.engine.process.client import START_TIMEOUT_SECS, RunnerProcess
from inference.engine.protocol.frames import Ready
from inference.errors import GpuBusy, ModelUnavailable, TooLittleMemory
from inference.gpu.device.lock import GpuLock, gpu_lock
from inference.gpu.device.port import GpuDevice

log = logging.getLogger(__name__)

TITLES = {Device.GPU: "gemma-runner gpu", Device.SIMULATED: "gemma-runner gpu (simulated)"}


class LockedRunner(RunnerProcess):
    """Its process holds the lock of the GPU until it exits, even if the worker is killed first."""

    def __init__(
        self,
        config: EngineConfig,
        lock: GpuLock,
        on_frame: OnFrame,
        on_exit: OnExit,
        on_out_of_memory: Callable[[], None],
        deadline: Path | None,
    ) -> None:
        super().__init__(
            config,
            title=TITLES[config.device],
            on_frame=on_frame,
            on_exit=on_exit,
            keep_fds=(lock.fd,),
            deadline=deadline,
        )
        self._lock = lock
        self._on_out_of_memory = on_out_of_memory

    def start(self, timeout_secs: float = START_TIMEOUT_SECS) -> Ready:
        try:
            with self._lock:
                return super().start(timeout_secs)
        except RunnerStartError as error:
            # Without memory on the GPU llama.cpp makes no context, or aborts the process.
            if error.code == BackendError.code or "SIGABRT" in str(error):
                self._on_out_of_memory()
            raise

    def _spawned(self) -> None:
        # A worker that is suspended while its runner starts must not keep the GPU from the others.
        self._lock.close()


class GpuRunnerMaker:
    """Makes runners for one GPU. ``n_layers``: the most to offload; fewer are tried when they do not fit.

    ``deadline``: file with the time by which they have to be gone (``engine.process.deadline``)."""

    def __init__(
        self,
        device: GpuDevice,
        lock_folder: Path,
        *,
        n_layers: int,
        load_delay_ms: float | None = None,
        deadline: Path | None = None,
    ) -> None:
        """``load_delay_ms`` None: a real GPU; else the load time of a simulated one."""
        self._device = device
        self._lock_folder = lock_folder
        self._n_layers = n_layers
        self._load_delay_ms = load_delay_ms
        self._deadline = deadline
        self._obstacle: str | None = None
        self._is_checked = False

    def __call__(self, on_frame: OnFrame, on_exit: OnExit) -> Runner:
        """Raises GpuBusy, TooLittleMemory, ModelUnavailable, or OSError."""
        config = self.config()
        free_mb = self._device.free_mb
        n_layers = self._n_fitting_layers(config, free_mb)
        if n_layers == 0:
            raise TooLittleMemory(self._shortage(config, free_mb))
        if config.backend is not BackendKind.FAKE and (shortage := gpu_memory_shortage(config, free_mb)):
            log.warning("not every layer fits device=%s n_layers=%d shortage=%s", self._device.name, n_layers, shortage)
        lock = gpu_lock(self._device.uuid, self._lock_folder)
        if lock is None:
            raise GpuBusy(f"another process of this machine has {self._device.name} in use")
        config = msgspec.structs.replace(config, gpu_layers=n_layers)

        def halve_layers() -> None:
            # For the next start: the estimate of the memory was too low.
            self._n_layers = max(1, n_layers // 2)
            log.warning("layers did not fit device=%s n_layers=%d next=%d", self._device.name, n_layers, self._n_layers)

        return LockedRunner(config, lock, on_frame, on_exit, halve_layers, self._deadline)

    def config(self) -> EngineConfig:
        """Return the configuration of a runner with all ``n_layers``."""
        is_simulated = self._load_delay_ms is not None
        config = engine_config()
        return msgspec.structs.replace(
            config,
            device=Device.SIMULATED if is_simulated else Device.GPU,
            gpu_layers=self._n_layers,
            load_delay_ms=self._load_delay_ms or 0.0,
            # A fresh runner measures the batch shapes of drafts first: on a CPU 15 instead of 35 tokens/s over the
            # first 60 tokens, and a session may be no longer than that.
            draft_max=0 if is_simulated else config.draft_max,
        )

    def obstacle(self) -> str | None:
        """Return why no runner could ever use this GPU, or None. Other tenants make room: their memory does not count.

        Computed once: it reads the header of the model file, and is called with every new work.
        """
        if not self._is_checked:
            try:
                config, total_mb = self.config(), self._device.total_mb
                obstacle = None if self._n_fitting_layers(config, total_mb) > 0 else self._shortage(config, total_mb)
            except (ModelUnavailable, ModelFileError) as error:
                return str(error)
            self._is_checked, self._obstacle = True, obstacle
        return self._obstacle

    def _n_fitting_layers(self, config: EngineConfig, free_mb: int) -> int:
        return config.gpu_layers if config.backend is BackendKind.FAKE else layers_that_fit(config, free_mb)

    def _shortage(self, config: EngineConfig, free_mb: int) -> str:
        shortage = gpu_memory_shortage(config, free_mb)
        return f"not one layer fits onto {self._device.name} of {self._device.total_mb} MB: {shortage}"
