"""Runners on the card: as many layers as fit, behind the card's lock, or a second runner on the CPU in its place.

Called when the lease is ours, so that the card's free memory is what we may take. Knows no lease and no placement.
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
    """Its process holds the card's lock as long as it generations, whoever is killed first."""

    def __init__(
        self,
        config: EngineConfig,
        lock: GpuLock,
        on_frame: OnFrame,
        on_exit: OnExit,
        on_no_room: Callable[[], None],
    ) -> None:
        super().__init__(config, title=TITLES[config.device], on_frame=on_frame, on_exit=on_exit, keep_fds=(lock.fd,))
        self._lock = lock
        self._on_no_room = on_no_room

    def start(self, timeout_secs: float = START_TIMEOUT_SECS) -> Ready:
        try:
            with self._lock:
                return super().start(timeout_secs)
        except RunnerStartError as error:
            # Without memory on the card llama.cpp makes no context, or aborts the process.
            if error.code == BackendError.code or "SIGABRT" in str(error):
                self._on_no_room()
            raise


class GpuRunnerMaker:
    """Makes runners for one card. ``n_layers`` are wanted; when they find no room on it, fewer are tried."""

    def __init__(
        self, card: GpuDevice, lock_folder: Path, *, n_layers: int, load_delay_ms: float | None = None
    ) -> None:
        """``load_delay_ms`` is for a simulated card; None means a real one."""
        self._card = card
        self._lock_folder = lock_folder
        self._n_layers = n_layers
        self._load_delay_ms = load_delay_ms
        self._obstacle: str | None = None
        self._is_looked_at = False

    def __call__(self, on_frame: OnFrame, on_exit: OnExit) -> Runner:
        """Raises GpuBusy, TooLittleMemory, ModelUnavailable, or OSError."""
        config = self.config()
        free_mb = self._card.free_mb
        n_layers = self._fitting(config, free_mb)
        if n_layers == 0:
            raise TooLittleMemory(self._too_small(config, free_mb))
        if config.backend is not BackendKind.FAKE and (shortage := gpu_memory_shortage(config, free_mb)):
            log.warning("%d layers go onto %s: %s", n_layers, self._card.name, shortage)
        lock = gpu_lock(self._card.uuid, self._lock_folder)
        if lock is None:
            raise GpuBusy(f"another process of this machine has {self._card.name} in use")
        config = msgspec.structs.replace(config, gpu_layers=n_layers)
        return LockedRunner(config, lock, on_frame, on_exit, lambda: self._had_no_room(n_layers))

    def config(self) -> EngineConfig:
        """Of a runner with all the layers that are wanted."""
        is_simulated = self._load_delay_ms is not None
        config = engine_config()
        return msgspec.structs.replace(
            config,
            device=Device.SIMULATED if is_simulated else Device.GPU,
            gpu_layers=self._n_layers,
            load_delay_ms=self._load_delay_ms or 0.0,
            # A fresh runner tries batch shapes for guesses first: on a CPU 15 instead of 35 tokens/s over the first 60
            # tokens (measured), and a stay may be no longer than that.
            draft_max=0 if is_simulated else config.draft_max,
        )

    def obstacle(self) -> str | None:
        """Why no runner of ours could ever be on this card. What others hold now does not count: they make room.

        Worked out once: reading the file's header takes long for who asks again and again.
        """
        if not self._is_looked_at:
            try:
                config, total_mb = self.config(), self._card.total_mb
                obstacle = None if self._fitting(config, total_mb) > 0 else self._too_small(config, total_mb)
            except (ModelUnavailable, ModelFileError) as error:
                return str(error)
            self._is_looked_at, self._obstacle = True, obstacle
        return self._obstacle

    def _had_no_room(self, n_layers: int) -> None:
        """The computation of what fits was too hopeful: half as many the next time."""
        self._n_layers = max(1, n_layers // 2)
        log.warning("%d layers did not fit onto %s; %d are tried next", n_layers, self._card.name, self._n_layers)

    def _fitting(self, config: EngineConfig, free_mb: int) -> int:
        return config.gpu_layers if config.backend is BackendKind.FAKE else layers_that_fit(config, free_mb)

    def _too_small(self, config: EngineConfig, free_mb: int) -> str:
        shortage = gpu_memory_shortage(config, free_mb)
        return f"not one layer fits onto {self._card.name} of {self._card.total_mb} MB: {shortage}"
