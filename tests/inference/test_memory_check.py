"""Before loading: does it fit, and which sizes would. The machine's numbers are files written by the test."""

from pathlib import Path

import pytest

from inference import memory_check
from inference.engine.config import MEBIBYTE, EngineConfig
from inference.memory_check import OVERHEAD_BYTES, Free, TooLittleMemory, check_memory, free_ram, kv_bytes


@pytest.fixture
def config(model_path: Path) -> EngineConfig:
    return EngineConfig(model_path=model_path, context_size=65_536, parallel=8)


def test_what_fits_passes_and_one_byte_less_does_not(config: EngineConfig) -> None:
    caches = kv_bytes(config)
    assert caches is not None
    assert caches == pytest.approx(223.5 * MEBIBYTE), "of 32,768 cells: the file knows no more positions"
    needed = caches + config.model_path.stat().st_size + OVERHEAD_BYTES
    check_memory(config, Free(needed, "MemAvailable"))
    with pytest.raises(TooLittleMemory) as caught:
        check_memory(config, Free(needed - 1, "MemAvailable"))
    message = str(caught.value)
    assert "GEMMA_CONTEXT_SIZE=65536 (32768 used): its caches need 224 MB" in message
    assert "(MemAvailable); sizes that fit: 16384, 8192, 4096, 2048, 1024, 512." in message


def test_when_nothing_fits_it_says_so(config: EngineConfig) -> None:
    with pytest.raises(TooLittleMemory, match="no size fits; use a smaller model"):
        check_memory(config, Free(10 * MEBIBYTE, "MemAvailable"))


class TestTheMachine:
    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
        (tmp_path / "own").write_text("1:name=x:/other\n0::/service/worker\n")
        (tmp_path / "cgroup/service/worker").mkdir(parents=True)
        monkeypatch.setattr(memory_check, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory_check, "OWN_CGROUP", tmp_path / "own")
        monkeypatch.setattr(memory_check, "CGROUPS", tmp_path / "cgroup")
        self.root = tmp_path / "cgroup"

    def limit(self, folder: Path, maximum: str, used: int, inactive: int = 0) -> None:
        (folder / "memory.max").write_text(f"{maximum}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon {used}\ninactive_file {inactive}\n")

    def test_without_limits_what_the_machine_has_available(self) -> None:
        self.limit(self.root / "service", "max", 500)
        assert free_ram() == Free(8000 * 1024, "MemAvailable")

    def test_the_narrowest_group_above_the_process_counts_less_what_is_used(self) -> None:
        self.limit(self.root / "service", "5000000", 3_000_000, inactive=400_000)
        self.limit(self.root / "service/worker", "7000000", 1_000_000)
        assert free_ram() == Free(2_400_000, "limit of the control group")

    def test_a_container_sees_its_own_group_as_the_root(self) -> None:
        self.limit(self.root, "1000000", 1_500_000)
        assert free_ram() == Free(0, "limit of the control group")
