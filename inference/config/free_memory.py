"""Free memory of this process: the machine's available memory and the limits of its control groups.

Knows no models.
"""

from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class FreeMemory:
    """Free bytes, and the limit that they come from."""

    n_bytes: int
    limit: str

    @classmethod
    def of_group(cls, folder: Path) -> "FreeMemory | None":
        """Return the free memory of the control group in ``folder``; None without a limit."""
        try:
            limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            return None  # no memory controller, or version 1
        if limit == "max":
            return None
        # The kernel reclaims inactive pages of files before it refuses memory.
        return cls(max(0, int(limit) - used + int(stat.get("inactive_file", 0))), "limit of the control group")


def free_ram() -> FreeMemory:
    """The smallest of the machine's available memory and the rests of this process's control groups."""
    available = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
    try:
        group = next(line[3:] for line in OWN_CGROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        group = "/"
    # Version 2: the process's control group and its ancestors. In a container the root is the container's.
    path = CGROUPS / group.strip().lstrip("/")
    groups = [folder for folder in (path, *path.parents) if folder.is_relative_to(CGROUPS)]
    limits = [FreeMemory(int(available.split()[1]) * 1024, "MemAvailable"), *map(FreeMemory.of_group, groups)]
    return min((free for free in limits if free), key=lambda free: free.n_bytes)
