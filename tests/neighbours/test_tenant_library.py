"""The tenant library at its edges: repeated pauses, leaving, forks, event loops, guests that lose the GPU."""

import asyncio
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connections
from pytest_django.live_server_helper import LiveServer

from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.sdk.client import GpuRefused, TenantClient
from inference.gpu.sdk.tenant import GpuTenant
from tests.neighbours.coordinator import NeighbourCoordinator, Wire

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_SECS = 15.0


class Program:
    """A model that is loaded or not, and the time that unloading takes."""

    def __init__(self, wire: Wire, *, url: str = "http://127.0.0.1:9", resident: bool = True) -> None:
        self.is_loaded = False
        self.calls: list[str] = []
        self.n_pauses = 0
        self.may_unload = threading.Event()
        self.may_unload.set()
        client = TenantClient(url, "whisper")
        self.tenant = GpuTenant("whisper", wire, client, self._unload, self._load, resident=resident)

    def _load(self) -> None:
        self.is_loaded = True
        self.calls.append("load")

    def _unload(self) -> None:
        self.n_pauses += 1
        assert self.may_unload.wait(PATIENCE_SECS)
        self.is_loaded = False
        self.calls.append("unload")

    def wait_until(self, *, is_loaded: bool) -> None:
        wait_for(lambda: self.is_loaded is is_loaded and self.tenant.is_allowed is is_loaded)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def acquire(wire: Wire, *, requester: str = "gemma-service", priority: int = 1) -> float:
    config = CoordinatorConfig(pause_secs=5.0, freed_secs=8.0)
    waiter = Waiter(requester, f"{requester}-{time.monotonic()}", priority)
    acquisition = Acquisition(wire, config, waiter=waiter, timeout_secs=10.0, renews=False)
    while (verdict := acquisition.step()) is None:
        time.sleep(acquisition.pause_secs)
    connections.close_all()
    assert isinstance(verdict, AcquisitionGranted), verdict
    return verdict.waited_secs


@pytest.fixture
def program(wire: Wire) -> Iterator[Program]:
    program = Program(wire)
    with program.tenant:
        program.wait_until(is_loaded=True)
        yield program


def command(wire: Wire, name: str, session_id: str) -> None:
    message = {"command": name, "session_id": session_id, "timestamp": datetime.now(UTC).isoformat()}
    wire.publish("gpu:command", json.dumps(message))


class TestRepeatedPauses:
    def test_pause_resume_pause_of_one_session(self, wire: Wire, program: Program) -> None:
        command(wire, "pause", "s1")
        program.wait_until(is_loaded=False)
        command(wire, "resume", "s1")
        program.wait_until(is_loaded=True)
        command(wire, "pause", "s1")  # within the time in which a repetition is taken for the other set of channels
        wait_for(lambda: program.calls == ["load", "unload", "load", "unload"])
        assert not program.tenant.is_allowed

    @pytest.mark.parametrize("flush_secs", [0.0, 0.1])
    def test_an_answer_to_a_coordinator_that_flushes_its_buffer(
        self, coordinator: NeighbourCoordinator, program: Program, flush_secs: float
    ) -> None:
        coordinator.flush_secs = flush_secs
        began = time.monotonic()
        assert coordinator._take("theirs", "gemma-service") is None
        assert time.monotonic() - began < coordinator.pause_secs
        assert not program.is_loaded


class TestLateReplies:
    """Replies to the neighbours' coordinators name no pause: a late one would count for the next request."""

    @pytest.mark.parametrize("is_resumed", [True, False])
    def test_a_late_one_grants_nothing(
        self, wire: Wire, coordinator: NeighbourCoordinator, program: Program, is_resumed: bool
    ) -> None:
        other = Program(wire)
        with other.tenant:
            other.wait_until(is_loaded=True)
            wait_for(lambda: wire.scard("gpu:tenants") == 2)
            program.may_unload.clear()
            coordinator.freed_secs = 0.5
            assert coordinator._take("s1", "gemma-service") == "transcription did not free the GPU"
            if is_resumed:
                coordinator.session = "s1"
                coordinator._end()
            other.wait_until(is_loaded=True)
            other.may_unload.clear()
            n_pauses, coordinator.freed_secs = other.n_pauses, 2.0
            with ThreadPoolExecutor(1) as pool:
                request = pool.submit(coordinator._take, "s2", "gemma-service")
                wait_for(lambda: other.n_pauses > n_pauses)
                program.may_unload.set()
                error, is_loaded = request.result(), other.is_loaded
            other.may_unload.set()
            assert is_loaded
            assert error == "transcription did not free the GPU"

    def test_the_late_resume_of_another_session_keeps_no_reply_back(
        self, wire: Wire, coordinator: NeighbourCoordinator, program: Program
    ) -> None:
        program.may_unload.clear()
        with ThreadPoolExecutor(1) as pool:
            request = pool.submit(coordinator._take, "s1", "gemma-service")
            wait_for(lambda: program.n_pauses)
            command(wire, "resume", "s0")
            wire.publish("transcription_resume", json.dumps({"task_id": "s0"}))
            wire.publish("transcription_resume", json.dumps({}))
            program.may_unload.set()
            assert request.result() is None
        assert not program.is_loaded


class TestLeaving:
    def test_it_unloads_and_keeps_nobody_waiting(self, wire: Wire) -> None:
        program = Program(wire)
        with program.tenant:
            program.wait_until(is_loaded=True)
            acquire(wire)  # the coordinator has counted it
            api.reset(wire)
            program.wait_until(is_loaded=True)
        assert program.calls[-1] == "unload"
        assert not program.tenant.is_allowed
        wire.delete("gpu:line")
        api.reset(wire)
        assert acquire(wire, requester="comfy") < 2.0  # not the time in which a resident might reconnect

    def test_another_resident_is_still_waited_for(self, wire: Wire) -> None:
        first, second = Program(wire), Program(wire)
        with second.tenant:
            with first.tenant:
                first.wait_until(is_loaded=True)
                second.wait_until(is_loaded=True)
                wire.set("gpu:resident", 4, px=15_000)
            assert wire.get("gpu:resident") == b"2"

    def test_a_use_after_the_end_is_refused(self, wire: Wire) -> None:
        program = Program(wire)
        with program.tenant:
            program.wait_until(is_loaded=True)
        with pytest.raises(GpuRefused), program.tenant.use():
            pass


class TestAPauseThatFails:
    def test_it_is_not_said_to_be_paused_the_next_time(self, wire: Wire, program: Program) -> None:
        unload, n_failures = program.tenant._on_pause, 2

        def fail_twice() -> None:
            nonlocal n_failures
            if n_failures:
                n_failures -= 1
                raise RuntimeError("the model cannot be unloaded")
            unload()

        program.tenant._on_pause = fail_twice
        answers: list[str] = []
        with wire.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe("gpu:ack:whisper")
            deadline = time.monotonic() + PATIENCE_SECS
            while answers[-1:] != ["freed"]:
                assert time.monotonic() < deadline, answers
                command(wire, "pause", f"s{len(answers)}")  # again: one that is lost after an error has no answer
                while message := pubsub.get_message(timeout=1.0):
                    ack = json.loads(message["data"])
                    if ack["ack_type"] == "error":
                        answers.append("error")
                    elif ack["ack_type"] == "paused" and not ack["metadata"].get("offloading"):
                        assert not program.is_loaded
                        answers.append("freed")
                        break
        assert answers == ["error", "error", "freed"]

    def test_it_is_tried_again_while_the_gpu_is_lent(self, wire: Wire, program: Program) -> None:
        unload, calls = program.tenant._on_pause, []

        def fail_once() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("the model cannot be unloaded")
            unload()

        program.tenant._on_pause = fail_once
        wire.set("gpu_state", "gemma")
        wait_for(lambda: not program.is_loaded)
        assert len(calls) == 2


class TestForks:
    def test_a_fork_is_refused(self, program: Program) -> None:
        context = multiprocessing.get_context("fork")
        outcome: multiprocessing.Queue[str] = context.Queue()

        def child() -> None:
            try:
                with program.tenant.use():
                    outcome.put("used")
            except RuntimeError:
                outcome.put(f"refused, allowed={program.tenant.is_allowed}")

        process = context.Process(target=child)
        process.start()
        assert outcome.get(timeout=PATIENCE_SECS) == "refused, allowed=False"
        process.join()


class TestEventLoops:
    def test_waiting_does_not_block_the_loop(self, wire: Wire, program: Program) -> None:
        command(wire, "pause", "s1")
        program.wait_until(is_loaded=False)

        async def run() -> int:
            n_ticks = 0

            async def use() -> None:
                async with program.tenant.use():
                    assert program.is_loaded

            task = asyncio.create_task(use())
            for _ in range(20):
                await asyncio.sleep(0.01)
                n_ticks += 1
            assert not task.done()
            command(wire, "resume", "s1")
            await asyncio.wait_for(task, PATIENCE_SECS)
            return n_ticks

        assert asyncio.run(run()) == 20
        assert program.tenant._n_using == 0

    def test_a_cancelled_wait_leaves_no_use_behind(self, wire: Wire, program: Program) -> None:
        command(wire, "pause", "s1")
        program.wait_until(is_loaded=False)

        async def run() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), program.tenant.use():
                    pytest.fail("it was used while it was lent")

        asyncio.run(run())
        command(wire, "resume", "s1")
        program.wait_until(is_loaded=True)
        assert program.tenant._n_using == 0


class TestGuests:
    def test_one_that_does_not_ask_has_nothing_to_wait_for(self, wire: Wire) -> None:
        guest = Program(wire, resident=False)
        with guest.tenant, pytest.raises(GpuRefused), guest.tenant.use():
            pass

    def test_a_recalled_one_gets_an_error_and_may_ask_again(self, wire: Wire, live_server: LiveServer) -> None:
        guest = Program(wire, url=str(live_server.url), resident=False)
        with guest.tenant:
            wait_for(lambda: wire.execute_command("PUBSUB", "NUMPAT"))
            with guest.tenant.ask(priority=2):
                with guest.tenant.use():
                    assert guest.is_loaded
                urgent = threading.Thread(target=acquire, args=(wire,), kwargs={"requester": "comfy"})
                urgent.start()
                wait_for(lambda: not guest.is_loaded)
                with pytest.raises(GpuRefused), guest.tenant.use():
                    pass
                urgent.join()
                api.reset(wire)
            with guest.tenant.ask(priority=2), guest.tenant.use():
                assert guest.is_loaded
