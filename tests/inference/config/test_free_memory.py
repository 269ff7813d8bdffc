"""Free memory. The machine's numbers are files written by the test."""

from pathlib import Path

import pytest

from inference.config import free_memory
from inference.config.free_memory import FreeMemory, free_ram


class TestTheMachine:
    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
        (tmp_path / "own").write_text("1:name=x:/other\n0::/service/worker\n")
        (tmp_path / "cgroup/service/worker").mkdir(parents=True)
        monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(free_memory, "OWN_CGROUP", tmp_path / "own")
        monkeypatch.setattr(free_memory, "CGROUPS", tmp_path / "cgroup")
        self.root = tmp_path / "cgroup"

    def limit(self, folder: Path, maximum: str, used: int, inactive: int = 0) -> None:
        (folder / "memory.max").write_text(f"{maximum}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon {used}\ninactive_file {inactive}\n")

    def test_without_limits_the_machine_s_available_memory(self) -> None:
        self.limit(self.root / "service", "max", 500)
        assert free_ram() == FreeMemory(8000 * 1024, "MemAvailable")

    def test_the_smallest_rest_of_the_control_groups(self) -> None:
        self.limit(self.root / "service", "5000000", 3_000_000, inactive=400_000)
        self.limit(self.root / "service/worker", "7000000", 1_000_000)
        assert free_ram() == FreeMemory(2_400_000, "limit of the control group")

    def test_a_container_sees_its_own_group_as_the_root(self) -> None:
        self.limit(self.root, "1000000", 1_500_000)
        assert free_ram() == FreeMemory(0, "limit of the control group")
