"""The GPU's part of the dispatcher, put together from the settings; none without a usable GPU."""

import functools
import logging
from pathlib import Path

from django.conf import settings
from django.db import connections

from inference.dispatch.gpu_parts import GpuParts, GpuPolicy
from inference.dispatch.gpu_runner import GpuRunnerMaker
from inference.dispatch.state_folder import StateFolder
from inference.engine.backends.llama_library import has_cuda
from inference.engine.config import MEBIBYTE
from inference.engine.process.deadline import Deadline
from inference.gpu.device.discovery import find_gpu
from inference.gpu.device.port import GpuDevice
from inference.gpu.lease.factory import WorkerLeaseClient
from inference.gpu.records.hand_over import HandOverRecord
from inference.gpu.records.store import record_hand_over

log = logging.getLogger(__name__)

DEADLINE = "deadline"  # in the folder for KV states, which is private and in memory
ALL_LAYERS = 10_000  # more than any model has; llama.cpp and the estimate of the memory take the smaller number


def gpu_parts() -> GpuParts | None:
    """None: everything is computed on the CPU, and no lease is requested."""
    device = find_gpu(settings.GEMMA_GPU)
    is_simulated = settings.GEMMA_GPU == "simulated"
    if device is None:
        return None
    if not is_simulated and not has_cuda():
        log.warning("gpu not used, llama-cpp-python was built without CUDA gpu=%s", device.name)
        return None
    try:
        folder = StateFolder(settings.GEMMA_SHM_DIR, settings.GEMMA_CACHE_RAM_MB * MEBIBYTE)
        deadline = Deadline(folder.path / DEADLINE)
    except OSError as error:
        log.error("gpu not used, no folder for KV states gpu=%s error=%s", device.name, error)  # noqa: TRY400
        return None
    maker = _maker(device, deadline.path, is_simulated=is_simulated)
    # The first look at the GPU takes time; here no answer waits for it.
    log.info("gpu found gpu=%s obstacle=%s", device.name, maker.obstacle() or "none")
    return GpuParts(
        device=device,
        make_runner=maker,
        make_lease_client=functools.partial(WorkerLeaseClient, extend_deadline=deadline.extend),
        record=_record,
        folder=folder,
        obstacle=maker.obstacle,
        policy=GpuPolicy(
            min_hold_secs=settings.GPU_MIN_HOLD_SECS,
            max_hold_secs=settings.GPU_MAX_HOLD_SECS,
            linger_secs=settings.GPU_LINGER_SECS,
        ),
        is_simulated=is_simulated,
    )


def _maker(device: GpuDevice, deadline: Path | None, *, is_simulated: bool) -> GpuRunnerMaker:
    delay_ms = float(settings.GEMMA_GPU_LOAD_DELAY_MS) if is_simulated else None
    # A GPU has one lock for all its users on this machine; a simulated one belongs to its installation.
    folder = settings.GEMMA_DATA_DIR if is_simulated else settings.GEMMA_SHM_DIR
    n_layers = settings.GEMMA_GPU_LAYERS if settings.GEMMA_GPU_LAYERS >= 0 else ALL_LAYERS
    return GpuRunnerMaker(device, folder, n_layers=n_layers, load_delay_ms=delay_ms, deadline=deadline)


def _record(record: HandOverRecord) -> None:
    # Called in a short-lived thread, which has to close its connection itself.
    try:
        record_hand_over(record)
    finally:
        connections.close_all()
