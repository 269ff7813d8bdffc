"""Whether the model and a context of the wanted size fit into this machine's memory, before either is loaded."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from inference.engine.config import MEBIBYTE, EngineConfig
from inference.engine.kv_memory import kv_shape, sizes_that_fit
from inference.engine.model_file import check_model_file
from inference.engine.runner import IDLE_SLOTS_PER_RUNNING
from inference.engine_settings import capped_context

# Buffers of the computation and the process itself, beside weights and caches.
OVERHEAD_BYTES = 300 * MEBIBYTE
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


class TooLittleMemory(Exception):
    """The wanted context does not fit; the message names the sizes that would."""


@dataclass(frozen=True)
class Free:
    """Memory that may still be taken, and who says so."""

    n_bytes: int
    limit: str


@lru_cache(maxsize=4)
def kv_bytes(config: EngineConfig) -> int | None:
    """What the caches of this configuration take, its context capped by the file; None if the file does not say."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return None
    return shape.n_bytes(config, capped_context(config, header.trained_context), _n_slots(config))


def check_memory(config: EngineConfig, free: Free) -> None:
    """Raises TooLittleMemory, or ModelFileError. A file that does not say enough is not checked."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return
    n_cells, n_slots = capped_context(config, header.trained_context), _n_slots(config)
    needed = shape.n_bytes(config, n_cells, n_slots)
    for_caches = free.n_bytes - config.model_path.stat().st_size - OVERHEAD_BYTES
    if needed <= for_caches:
        return
    fitting = sizes_that_fit(shape, config, n_cells=n_cells, n_slots=n_slots, free_bytes=for_caches)
    advice = f"sizes that fit: {', '.join(map(str, fitting))}" if fitting else "no size fits; use a smaller model"
    raise TooLittleMemory(
        f"GEMMA_CONTEXT_SIZE={config.context_size} ({n_cells} used): its caches need {_mb(needed)} MB beside the "
        f"model's {_mb(header.data_end)} MB and {_mb(OVERHEAD_BYTES)} MB to compute with, but {_mb(free.n_bytes)} MB "
        f"are free ({free.limit}); {advice}. Smaller GEMMA_PARALLEL, GEMMA_KV_TYPE_K and GEMMA_KV_TYPE_V need less too."
    )


def free_ram() -> Free:
    """The least of what the machine has available and what the limits of this process's control groups leave."""
    found = [Free(_available(), "MemAvailable"), *map(_left_in, _own_cgroups())]
    return min((free for free in found if free), key=lambda free: free.n_bytes)


def _n_slots(config: EngineConfig) -> int:
    return config.parallel * (1 + IDLE_SLOTS_PER_RUNNING)


def _available() -> int:
    line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def _own_cgroups() -> list[Path]:
    """Version 2: the process's group and those above it. In a container the root is its own."""
    try:
        own = next(line[3:] for line in OWN_CGROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "/"
    path = CGROUPS / own.strip().lstrip("/")
    return [folder for folder in (path, *path.parents) if folder.is_relative_to(CGROUPS)]


def _left_in(folder: Path) -> Free | None:
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # not limited here, or another kind of control group
    if limit == "max":
        return None
    # Pages of files that nobody has used lately are given up when somebody wants the memory.
    return Free(max(0, int(limit) - used + int(stat.get("inactive_file", 0))), "limit of the control group")


def _mb(n_bytes: int) -> int:
    return -(-n_bytes // MEBIBYTE)
