"""A tenant finds the Redis of `serve`, and both sides agree on which one leaves without Redis."""

import stat
from pathlib import Path

import httpx
import pytest
import redis

from gemma_project.management.commands.serve import Command
from inference.gpu.lease.redis_watch import RedisWatch
from inference.gpu.sdk.addresses import GpuAddresses, read_addresses, remove_addresses, write_addresses
from inference.gpu.sdk.tenant import LONELY_SECS, gpu_tenant
from inference.gpu.transports.port import Denial
from inference.gpu.transports.remote import OutsideCoordinator

ADDRESSES = GpuAddresses("unix:///run/somewhere/valkey.sock", "http://127.0.0.1:8001")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own" / "addresses.json"
    monkeypatch.setenv("GPU_ADDRESS_FILE", str(path))
    for name in ("GPU_REDIS_URL", "REDIS_URL", "GPU_COORDINATOR_URL"):
        monkeypatch.delenv(name, raising=False)
    return path


def path_of_tenant(redis_url: str | None = None) -> object:
    tenant = gpu_tenant("whisper", on_pause=print, on_resume=print, redis_url=redis_url)
    return tenant._redis.connection_pool.connection_kwargs.get("path")


class TestAddresses:
    def test_what_serve_writes_the_tenant_uses(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_addresses(ADDRESSES)
        assert path_of_tenant() == "/run/somewhere/valkey.sock"
        assert path_of_tenant(redis_url="unix:///elsewhere.sock") == "/elsewhere.sock"
        monkeypatch.setenv("REDIS_URL", "unix:///from-environment.sock")
        assert path_of_tenant() == "/from-environment.sock"

    def test_it_is_readable_by_its_user_alone(self, file: Path) -> None:
        write_addresses(ADDRESSES)
        write_addresses(ADDRESSES)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert list(file.parent.iterdir()) == [file]

    @pytest.mark.parametrize("mode", [0o666, 0o620])
    def test_one_that_others_may_write_is_not_read(self, file: Path, mode: int) -> None:
        write_addresses(ADDRESSES)
        file.chmod(mode)
        assert read_addresses() is None
        assert path_of_tenant() is None

    @pytest.mark.parametrize("text", ["", "[]", '{"redis_url": "x"}', "\x00"])
    def test_garbage_is_not_read(self, file: Path, text: str) -> None:
        file.parent.mkdir(mode=0o700)
        file.write_text(text)
        file.chmod(0o600)
        assert read_addresses() is None

    def test_only_its_own_are_removed(self, file: Path) -> None:
        write_addresses(ADDRESSES)
        remove_addresses(GpuAddresses("redis://elsewhere", "http://elsewhere"))
        assert read_addresses() == ADDRESSES
        remove_addresses(ADDRESSES)
        assert read_addresses() is None

    def test_serve_prints_what_it_writes(self, file: Path) -> None:
        command = Command()
        text = command._publish_gpu_addresses("http://127.0.0.1:8001")
        assert str(file) in text
        assert "GPU_REDIS_URL=unix://" in text
        assert read_addresses() == command.addresses


class TestRedisGone:
    def test_the_holder_leaves_before_the_residents_enter(self) -> None:
        now = [0.0]
        watch = RedisWatch(redis.Redis.from_url("unix:///nowhere/valkey.sock"), clock=lambda: now[0])
        left_at = next(secs for secs in range(100) if _is_gone_at(watch, now, secs))
        assert left_at == 15
        assert left_at + 10 < LONELY_SECS  # for the runner to end

    def test_a_gap_between_two_looks_is_no_outage(self) -> None:
        now = [0.0]
        watch = RedisWatch(redis.Redis.from_url("unix:///nowhere/valkey.sock"), clock=lambda: now[0])
        assert not watch.is_gone()
        assert not _is_gone_at(watch, now, 3600)

    def test_without_redis_nothing_is_requested_and_a_lease_is_lost(self) -> None:
        calls: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            calls.append(request.url.path)
            return httpx.Response(200, json={"session_id": "s1", "state": "gemma", "success": True})

        coordinator = OutsideCoordinator(
            "http://there",
            acquire_secs=1.0,
            mint=lambda: None,
            is_redis_gone=lambda session_id: True,
            transport=httpx.MockTransport(answer),
        )
        denial = coordinator.acquire(session_id="s1", priority=1, metadata={})
        assert isinstance(denial, Denial)
        assert not denial.in_doubt
        assert not denial.leaves_paused
        assert "Redis" in (coordinator.renew("s1") or "")
        assert calls == []


def _is_gone_at(watch: RedisWatch, now: list[float], secs: float) -> bool:
    now[0] = float(secs)
    return watch.is_gone()
