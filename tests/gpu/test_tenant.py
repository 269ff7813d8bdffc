"""The tenant library over the built-in coordinator: pausing, resuming, asking, and what follows a restart."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from django.db import connections
from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import AcquisitionGranted, AcquisitionRefused
from inference.gpu.sdk import tenant as tenant_module
from inference.gpu.sdk.client import TenantClient
from inference.gpu.tenant import GpuRefused, GpuTenant, gpu_tenant
from tests.gpu.lease_client_contract import until
from tests.gpu.tenants import Wire
from tests.gpu.test_acquiring import asking, granted, verdict_of
from tests.live_stack import PROJECT

pytestmark = [pytest.mark.django_db(transaction=True)]


class Program:
    """A tenant's program: a log of its calls, and whether it holds memory."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: Exception | None = None

    def load(self) -> None:
        self.calls.append("load")

    def unload(self) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append("unload")

    @property
    def holds(self) -> bool:
        return self.calls[-1:] == ["load"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secs in (("LISTEN_SECS", 0.02), ("CHECK_SECS", 0.05), ("RECONNECT_SECS", 0.05)):
        monkeypatch.setattr(tenant_module, name, secs)


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def begin(wire: Wire, program: Program) -> Iterator[Callable[..., GpuTenant]]:
    made: list[GpuTenant] = []

    def make(service: str = "transcription", *, url: str = "http://127.0.0.1:9", resident: bool = True) -> GpuTenant:
        tenant = gpu_tenant(
            service,
            on_pause=program.unload,
            on_resume=program.load,
            redis_url=settings.GPU_REDIS_URL,
            coordinator_url=url,
            resident=resident,
        )
        made.append(tenant.__enter__())
        return tenant

    yield make
    for tenant in made:
        tenant.__exit__(None, None, None)


def test_a_resident_leaves_and_comes_back(wire: Wire, program: Program, begin: Callable[..., GpuTenant]) -> None:
    tenant = begin()
    until(lambda: tenant.is_allowed)
    epoch = granted(wire, "s1")
    assert (epoch, program.calls, tenant.is_allowed) == (1, ["load", "unload"], False)
    api.release(wire, session_id="s1")
    until(lambda: tenant.is_allowed)
    assert program.calls == ["load", "unload", "load"]


def test_a_use_is_not_interrupted(wire: Wire, program: Program, begin: Callable[..., GpuTenant]) -> None:
    tenant = begin()
    inside, go_on = threading.Event(), threading.Event()

    def use() -> None:
        with tenant.use():
            inside.set()
            go_on.wait(5)
            assert program.holds

    using = threading.Thread(target=use)
    using.start()
    assert inside.wait(5)
    acquisition = asking(wire)
    for _ in range(5):
        assert acquisition.step() is None
        time.sleep(0.02)
    assert program.holds
    go_on.set()
    assert isinstance(verdict_of(acquisition), AcquisitionGranted)
    using.join()
    assert not program.holds


def test_one_that_cannot_leave_keeps_the_card(wire: Wire, program: Program, begin: Callable[..., GpuTenant]) -> None:
    tenant = begin()
    until(lambda: tenant.is_allowed)
    program.error = RuntimeError("no")
    verdict = verdict_of(asking(wire))
    assert isinstance(verdict, AcquisitionRefused)
    assert "transcription could not leave" in verdict.reason
    program.error = None  # at its end the tenant leaves again


def test_one_that_begins_while_another_has_the_card_waits(
    wire: Wire, program: Program, begin: Callable[..., GpuTenant]
) -> None:
    granted(wire, "s1", renews=False)
    tenant = begin()
    time.sleep(0.3)
    assert program.calls == []
    api.release(wire, session_id="s1")
    until(lambda: tenant.is_allowed)


def test_words_that_were_missed_are_read_from_the_signs(
    wire: Wire, program: Program, begin: Callable[..., GpuTenant]
) -> None:
    """Its connection breaks; meanwhile the GPU is lent and returned."""
    tenant = begin()
    until(lambda: tenant.is_allowed)
    wire.set("gpu_state", "gemma")
    wire.client_kill_filter(_type="pubsub", skipme=True)
    until(lambda: not tenant.is_allowed)
    wire.set("gpu_state", "transcription")
    wire.client_kill_filter(_type="pubsub", skipme=True)
    until(lambda: tenant.is_allowed)
    assert program.calls == ["load", "unload", "load"]


def test_a_wipe_of_redis_changes_nothing_for_who_works(
    wire: Wire, program: Program, begin: Callable[..., GpuTenant]
) -> None:
    tenant = begin()
    until(lambda: tenant.is_allowed)
    wire.flushall()
    time.sleep(0.3)
    assert program.calls == ["load"]
    granted(wire, "s1")
    assert program.calls == ["load", "unload"]


def test_where_redis_never_was_the_card_is_not_taken(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Its address may be wrong, and the holder at another one."""
    tenant = gpu_tenant(
        "transcription", on_pause=program.unload, on_resume=program.load, redis_url="redis://127.0.0.1:9/0"
    )
    tenant.lonely_secs = 0.2
    with tenant:
        until(lambda: "no Redis at the address" in caplog.text)
        time.sleep(0.3)
        assert not tenant.is_allowed
    assert program.calls == []


class TestAsking:
    """Over real HTTP."""

    @pytest.fixture
    def url(self, live_server: LiveServer) -> str:
        return str(live_server.url)

    def test_a_guest_has_the_card_inside_its_block(
        self, wire: Wire, program: Program, begin: Callable[..., GpuTenant], url: str
    ) -> None:
        guest = begin("comfy", url=url, resident=False)
        with guest.ask(priority=1, timeout_secs=5) as lease, guest.use():
            assert program.holds
            assert (api.status(wire).owner, api.status(wire).session_id) == ("comfy", lease.session_id)
            with pytest.raises(GpuRefused, match="comfy holds the GPU"):
                begin("other", url=url, resident=False)._acquire(1, 1.0)
        assert program.calls == ["load", "unload"]
        assert api.status(wire).session_id is None

    def test_a_guest_gives_way_to_somebody_more_urgent(
        self, wire: Wire, program: Program, begin: Callable[..., GpuTenant], url: str
    ) -> None:
        guest = begin("comfy", url=url, resident=False)
        with guest.ask(priority=2, timeout_secs=5):
            assert isinstance(verdict_of(asking(wire, "urgent", priority=1)), AcquisitionGranted)
            assert not guest.is_allowed
        assert program.calls == ["load", "unload"]
        assert api.status(wire).session_id == "urgent"

    def test_a_resident_may_ask_and_need_not_leave_for_itself(
        self, wire: Wire, program: Program, begin: Callable[..., GpuTenant], url: str
    ) -> None:
        tenant = begin(url=url)
        until(lambda: tenant.is_allowed)
        with tenant.ask(timeout_secs=5):
            assert api.status(wire).owner == "transcription"
            assert isinstance(verdict_of(asking(wire, "s2", priority=2, timeout_secs=0.1)), AcquisitionRefused)
        assert program.calls == ["load"]
        assert isinstance(verdict_of(asking(wire, "s3")), AcquisitionGranted)
        assert program.calls == ["load", "unload"]

    def test_a_resident_that_asked_leaves_before_the_next_in_line_has_the_card(
        self, wire: Wire, program: Program, begin: Callable[..., GpuTenant], url: str
    ) -> None:
        tenant = begin(url=url)
        until(lambda: tenant.is_allowed)
        following = asking(wire, "s2")
        with tenant.ask(timeout_secs=5):
            assert following.step() is None
        assert isinstance(verdict_of(following), AcquisitionGranted)
        assert program.calls == ["load", "unload"]

    def test_one_that_cannot_renew_has_left_before_somebody_else_comes(
        self, wire: Wire, program: Program, begin: Callable[..., GpuTenant], url: str, settings: Settings
    ) -> None:
        settings.GPU_LEASE_TTL_SECS = 0.8
        guest = begin("comfy", url=url, resident=False)
        with guest.ask(timeout_secs=5) as lease:
            guest._coordinator = TenantClient("http://127.0.0.1:9", "comfy")
            until(lambda: not guest.is_allowed)
            assert api.status(wire).session_id == lease.session_id, "it has left while the card was still its own"
        assert program.calls == ["load", "unload"]

    def test_nobody_there_is_a_refusal(self, begin: Callable[..., GpuTenant]) -> None:
        guest = begin("comfy", resident=False)
        with pytest.raises(GpuRefused, match="cannot be reached"), guest.ask():
            pytest.fail("it was granted by nobody")


def test_it_imports_without_django() -> None:
    code = "import sys, inference.gpu.tenant; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


def test_the_example_counts_its_work_and_leaves_when_asked(wire: Wire) -> None:
    command = [sys.executable, "-m", "examples.gpu_tenant", "--megabytes", "8", "--unit-secs", "0.01"]
    command += ["--redis-url", settings.GPU_REDIS_URL]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "resumed: holding 8 MB\n"
        granted(wire, "s1")
        api.release(wire, session_id="s1")
        lines = [process.stdout.readline()]
        while "resumed" not in lines[-1]:
            lines.append(process.stdout.readline())
        assert any(line.startswith("paused after") for line in lines), lines
        process.terminate()
        assert "1 pauses" in process.stdout.read()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        connections.close_all()
