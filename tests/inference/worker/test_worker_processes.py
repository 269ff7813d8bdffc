"""Worker processes that are killed, paused, stopped, or lose their broker: nothing is lost, repeated or done twice."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from django.conf import settings
from django.db import connection

from gemma_project.broker_url import socket_url
from gemma_project.supervisor import valkey
from inference.models import Generation, Status
from inference.queue import notify
from inference.runtime import redis_client
from inference.runtime.redis_client import log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import EndEntry, TokenEntry
from tests.inference.making import queued
from tests.inference.worker_process import WorkerProcess
from tests.inference.working import eventually, is_ended

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="the processes share a file"),
]

SLOW = "[[delay: 20]] [[count: 60]]"
ANSWER = "".join(f"{number} " for number in range(1, 61))
MakeWorker = Callable[..., WorkerProcess]


@pytest.fixture(autouse=True)
def notifications() -> list[tuple[str, str]]:
    """Wake-up messages are really sent here."""
    return []


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[MakeWorker]:
    workers: list[WorkerProcess] = []

    def start(**environment: str) -> WorkerProcess:
        workers.append(WorkerProcess(tmp_path, **environment))
        return workers[-1]

    yield start
    for worker in workers:
        worker.clean_up()


def n_said(generation: Generation) -> int:
    return len(redis_log.tail(redis_client.shared_client(), generation.pk))


def has_said(generation: Generation, count: int) -> Callable[[], bool]:
    return lambda: n_said(generation) >= count


def is_run_by(worker: WorkerProcess, generation: Generation) -> Callable[[], bool]:
    def condition() -> bool:
        generation.refresh_from_db()
        return worker.name_part in generation.worker

    return condition


def assert_told_once(generation: Generation) -> None:
    """The log holds every token of the answer once, in order, and one End."""
    generation.refresh_from_db()
    client = redis_client.shared_client()
    assert eventually(lambda: _ends(client, generation) == 1)
    entries = [redis_log.decode(fields[redis_log.FIELD]) for _, fields in client.xrange(log_key(generation.pk))]
    token_entries = [entry for entry in entries if isinstance(entry, TokenEntry)]
    assert [token.index for token in token_entries] == list(range(1, len(token_entries) + 1))
    assert "".join(entry.text for entry in entries if isinstance(entry, TokenEntry | EndEntry)) == generation.text
    assert isinstance(entries[-1], EndEntry)


def _ends(client: "redis.Redis[bytes]", generation: Generation) -> int:
    entries = [redis_log.decode(fields[b"e"]) for _, fields in client.xrange(log_key(generation.pk))]
    return sum(isinstance(entry, EndEntry) for entry in entries)


def test_a_killed_worker_loses_nothing(start_worker: MakeWorker) -> None:
    first = start_worker()
    generation = queued(say=SLOW)
    assert eventually(has_said(generation, 20))
    children = first.children()
    second = start_worker()
    first.signal(signal.SIGKILL)
    assert eventually(lambda: is_ended(generation))
    assert (generation.status, generation.attempt) == (Status.COMPLETE, 2)
    assert generation.text == ANSWER
    assert_told_once(generation)
    assert eventually(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    assert second.is_alive


def test_a_paused_worker_can_write_nothing_when_it_comes_back(start_worker: MakeWorker) -> None:
    first = start_worker()
    generation = queued(say=SLOW)
    assert eventually(has_said(generation, 10))
    first.signal(signal.SIGSTOP)  # its runner goes on and fills the pipe
    second = start_worker()
    assert eventually(is_run_by(second, generation))
    first.signal(signal.SIGCONT)
    assert eventually(lambda: is_ended(generation))
    assert (generation.text, generation.attempt) == (ANSWER, 2)
    assert_told_once(generation)
    assert eventually(lambda: "lost" in first.output or "belongs to another worker" in first.output)


def test_five_wake_up_messages_are_one_run(start_worker: MakeWorker) -> None:
    generation = queued(say="[[delay: 10]] [[count: 30]]")
    for _ in range(5):
        assert notify.notify(generation.pk)
    start_worker()
    assert eventually(lambda: is_ended(generation))
    assert (generation.attempt, generation.claim_epoch) == (1, 1)
    assert_told_once(generation)


def test_a_long_generation_is_not_taken_over(start_worker: MakeWorker) -> None:
    """Three times the time after which a silent owner is taken over, with two reapers watching."""
    start_worker(), start_worker()
    generation = queued(say="[[delay: 60]] [[count: 40]]")
    assert eventually(lambda: is_ended(generation))
    assert generation.timings["decode"] > 3 * 2000
    assert (generation.attempt, generation.claim_epoch) == (1, 1)


def test_a_stop_within_its_time_and_everything_runs_elsewhere_once(start_worker: MakeWorker) -> None:
    first = start_worker(GEMMA_PARALLEL="1")
    running = queued("a", say=SLOW)
    assert eventually(has_said(running, 10))
    waiting = [queued(f"user:{number}", say="[[count: 5]]") for number in range(3)]
    began = time.monotonic()
    first.signal(signal.SIGTERM)
    assert first.wait(10) == 0
    assert time.monotonic() - began < 0.5 + 5  # DRAIN_SECS and slack for a busy machine
    running.refresh_from_db()
    assert (running.status, running.attempt) == (Status.QUEUED, 0)
    before = n_said(running)
    start_worker()
    assert eventually(lambda: all(map(is_ended, (running, *waiting))))
    assert running.text == ANSWER
    assert before >= 10
    assert_told_once(running)
    assert [row.text for row in waiting] == ["1 2 3 4 5 "] * 3
    assert [row.attempt for row in waiting] == [1, 1, 1]


def test_an_idle_worker_stops_at_once(start_worker: MakeWorker) -> None:
    worker = start_worker()
    assert eventually(lambda: "runner is ready" in worker.output)
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert time.monotonic() - began < 5


class Broker:
    """A Valkey that may be killed and started again on its data."""

    def __init__(self, folder: Path) -> None:
        self._socket, self._data = folder / "v.sock", folder / "valkey"
        valkey.prepare_directories(self._socket, self._data)
        self.url = socket_url(self._socket)
        self.start()

    def start(self) -> None:
        command = valkey.command(self._socket, self._data)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        assert eventually(lambda: valkey.answers(self._socket))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("b"))
    monkeypatch.setattr(settings, "REDIS_URL", broker.url)
    redis_client.shared_client.cache_clear()
    yield broker
    broker.kill()
    redis_client.shared_client.cache_clear()


@pytest.mark.parametrize("down_secs", [0.3, 3.0])
def test_a_killed_broker_is_survived_in_the_middle_of_an_answer(
    start_worker: MakeWorker, broker: Broker, down_secs: float
) -> None:
    worker = start_worker()
    generation = queued(say=SLOW)
    assert eventually(has_said(generation, 10))
    broker.kill()
    time.sleep(down_secs)
    broker.start()
    assert eventually(lambda: is_ended(generation))
    assert (generation.text, generation.attempt) == (ANSWER, 1)
    assert_told_once(generation)
    assert worker.is_alive
    following = queued(say="[[say: still here]]")
    assert eventually(lambda: is_ended(following), secs=15)
    assert following.text == "still here"


def test_rows_queued_while_the_broker_was_down_run_when_it_is_back(start_worker: MakeWorker, broker: Broker) -> None:
    worker = start_worker()
    warm = queued(say="[[say: warm]]")
    assert eventually(lambda: is_ended(warm))
    broker.kill()
    generation = queued(say="[[say: later]]")
    time.sleep(1)
    broker.start()
    assert eventually(lambda: is_ended(generation))
    assert generation.text == "later"
    assert worker.is_alive


def test_a_killed_runner_leaves_no_process_behind(start_worker: MakeWorker) -> None:
    worker = start_worker()
    generation = queued(say=SLOW)
    assert eventually(has_said(generation, 10))
    runner = next(child for child in worker.children() if "gemma-runner" in " ".join(child.cmdline()))
    runner.kill()
    assert eventually(lambda: is_ended(generation))
    assert generation.text == ANSWER
    assert_told_once(generation)
    assert not psutil.pid_exists(runner.pid)
