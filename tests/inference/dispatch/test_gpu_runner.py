"""The runner on a GPU: as many layers as fit, under its lock; and machines without a usable GPU."""

import math
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pytest_django.fixtures import Settings

from inference.config import memory_budget
from inference.dispatch import gpu_runner
from inference.dispatch.gpu_runner import GpuRunnerMaker, LockedRunner
from inference.engine.config import BackendKind, Device, EngineConfig
from inference.engine.errors import RunnerStartError
from inference.engine.process.deadline import Deadline
from inference.errors import GpuBusy, TooLittleMemory
from inference.gpu.device.lock import gpu_lock
from inference.worker import gpu_setup
from tests.engine.harness import fake_config
from tests.live_stack import wait_until


@dataclass
class GpuDevice:
    total_mb: int
    free_mb: int
    uuid: str = "GPU-test"
    name: str = "test card"

    def vram_used_mb_of(self, pids: object) -> int:
        return 0


@pytest.fixture
def _real_file(monkeypatch: pytest.MonkeyPatch, model_path: Path) -> None:
    config = EngineConfig(model_path=model_path, backend=BackendKind.LLAMA, context_size=8192)
    monkeypatch.setattr(gpu_runner, "engine_config", lambda: config)


def made(card: GpuDevice, folder: Path, n_layers: int = 25) -> LockedRunner:
    runner = GpuRunnerMaker(card, folder, n_layers=n_layers)(lambda _: None, lambda _: None)
    assert isinstance(runner, LockedRunner)
    runner._lock.close()
    return runner


@pytest.mark.usefixtures("_real_file")
@pytest.mark.parametrize(("free_mb", "n_layers"), [(8000, 19), (900, (5, 18)), (100, 0)])
def test_a_small_card_gets_fewer_layers(tmp_path: Path, free_mb: int, n_layers: int | tuple[int, int]) -> None:
    card = GpuDevice(8000, free_mb)
    if n_layers == 0:
        with pytest.raises(TooLittleMemory, match="8000 MB: GEMMA_CONTEXT_SIZE=8192 .* 100 MB are free"):
            made(card, tmp_path)
        return
    config = made(card, tmp_path)._config
    low, high = n_layers if isinstance(n_layers, tuple) else (n_layers, n_layers)
    assert low <= config.gpu_layers <= high
    assert config.device is Device.GPU
    assert memory_budget.layers_that_fit(config, free_mb) == config.gpu_layers


@pytest.mark.usefixtures("_real_file")
def test_a_card_that_is_too_small_is_an_obstacle_and_one_that_is_full_now_is_not(tmp_path: Path) -> None:
    assert GpuRunnerMaker(GpuDevice(8000, 10), tmp_path, n_layers=25).obstacle() is None, "others make room"
    obstacle = GpuRunnerMaker(GpuDevice(200, 200), tmp_path, n_layers=25).obstacle()
    assert obstacle is not None
    assert "not one layer fits" in obstacle
    assert "no size fits; use a smaller model" in obstacle


@pytest.mark.usefixtures("_real_file")
@pytest.mark.parametrize(("free_mb", "says"), [(8000, ""), (1000, "sizes that fit: 2048, 1024, 512; ")])
def test_which_sizes_would_fit_is_said_when_some_layers_do_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, free_mb: int, says: str
) -> None:
    made(GpuDevice(8000, free_mb), tmp_path)
    messages = [record.getMessage() for record in caplog.records if "device=test card" in record.getMessage()]
    assert len(messages) == bool(says)
    assert all(says in message and "with this one GEMMA_GPU_LAYERS=" in message for message in messages)


@pytest.mark.usefixtures("_real_file")
def test_after_a_load_that_found_no_room_half_as_many_are_tried(tmp_path: Path) -> None:
    maker = GpuRunnerMaker(GpuDevice(8000, 8000), tmp_path, n_layers=16)
    runner = maker(lambda _: None, lambda _: None)
    assert isinstance(runner, LockedRunner)
    runner._on_out_of_memory()
    assert maker.config().gpu_layers == 8


@pytest.mark.usefixtures("_real_file")
def test_a_card_that_another_process_uses_is_left_alone(tmp_path: Path) -> None:
    held = gpu_lock("GPU-test", tmp_path)
    assert held is not None
    with held, pytest.raises(GpuBusy, match="test card"):
        made(GpuDevice(8000, 8000), tmp_path)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, "deadline"])
def test_while_a_runner_loads_it_alone_has_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals | str
) -> None:
    """A worker that is suspended meanwhile must not keep it from the others."""
    monkeypatch.setattr(gpu_runner, "engine_config", lambda: fake_config(gpu_layers=1))
    deadline = Deadline(tmp_path / "deadline")
    deadline.extend(time.monotonic() + 6.0 if end == "deadline" else math.inf)
    maker = GpuRunnerMaker(GpuDevice(8000, 8000), tmp_path, n_layers=1, load_delay_ms=60_000.0, deadline=deadline.path)
    runner = maker(lambda _: None, lambda _: None)
    assert isinstance(runner, LockedRunner)
    path = str(runner._lock.path)
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(runner.start)
        try:
            wait_until(lambda: has_card(runner) and path not in open_paths(os.getpid()), timeout_secs=30, what="alone")
            assert gpu_lock("GPU-test", tmp_path) is None
            if isinstance(end, signal.Signals):
                os.kill(runner.pid, end)
                with pytest.raises(RunnerStartError, match=end.name):
                    starting.result(30)
            else:
                with pytest.raises(RunnerStartError, match="its deadline was not extended"):
                    starting.result(60)
        finally:
            runner.kill()
    lock = gpu_lock("GPU-test", tmp_path)
    assert lock is not None
    lock.close()


def has_card(runner: LockedRunner) -> bool:
    return runner.alive and str(runner._lock.path) in open_paths(runner.pid)


def open_paths(pid: int) -> set[str]:
    return {file.path for file in psutil.Process(pid).open_files()}


@pytest.mark.parametrize("mode", ["off", "auto", "simulated"])
def test_which_card_the_settings_mean(settings: Settings, tmp_path: Path, mode: str) -> None:
    settings.GEMMA_GPU, settings.GEMMA_SHM_DIR, settings.GEMMA_GPU_LOAD_DELAY_MS = mode, tmp_path, 70
    parts = gpu_setup.gpu_parts()
    if mode != "simulated":
        assert parts is None
        return
    assert parts is not None
    assert parts.is_simulated
    assert "simulated" in parts.device.name
    assert isinstance(parts.make_runner, GpuRunnerMaker)
    config = parts.make_runner.config()
    assert (config.device, config.load_delay_ms, config.layers_on_gpu) == (Device.SIMULATED, 70.0, 25)
    parts.folder.close()


def test_without_a_place_for_states_there_is_no_card(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.GEMMA_GPU, settings.GEMMA_SHM_DIR = "simulated", tmp_path / "missing"
    assert gpu_setup.gpu_parts() is None
    assert "no folder for KV states" in caplog.text
