"""How much memory this process may still take: what the machine has available and what its control groups leave.

Knows no models.
"""

from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class FreeMemory:
    """Memory that may still be taken, and who says so."""

    n_bytes: int
    limit: str


def free_ram() -> FreeMemory:
    """The least of what the machine has available and what the limits of this process's control groups leave."""
    found = [FreeMemory(_available(), "MemAvailable"), *map(_left_in, _own_cgroups())]
    return min((free for free in found if free), key=lambda free: free.n_bytes)


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


def _left_in(folder: Path) -> FreeMemory | None:
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None  # not limited here, or another kind of control group
    if limit == "max":
        return None
    # Pages of files that nobody has used lately are given up when somebody wants the memory.
    return FreeMemory(max(0, int(limit) - used + int(stat.get("inactive_file", 0))), "limit of the control group")
