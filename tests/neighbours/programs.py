"""The programs of a neighbourhood, each a process of its own that is killed, frozen and started again.

A fork server imports this module once, so that a process costs milliseconds. Every program ends with its pipe.
"""

import dataclasses
import fcntl
import functools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "gemma_project.settings"
django.setup()

import redis  # noqa: E402
from django.conf import settings  # noqa: E402
from django.db import connections  # noqa: E402

from inference.dispatch import Dispatcher, gpu_demand  # noqa: E402
from inference.dispatch.generation_state import ActiveGeneration  # noqa: E402
from inference.dispatch.gpu_parts import GpuParts, GpuPolicy  # noqa: E402
from inference.dispatch.runner_launcher import OnExit, OnFrame, Runner  # noqa: E402
from inference.dispatch.state_folder import StateFolder  # noqa: E402
from inference.engine.errors import RunnerStartError  # noqa: E402
from inference.engine.process.client import HAS_LEFT, RunnerExit  # noqa: E402
from inference.engine.process.deadline import STATUS, Deadline  # noqa: E402
from inference.engine.protocol.frames import (  # noqa: E402
    CacheExported,
    Export,
    ExportCache,
    Exported,
    Frame,
    Import,
    Imported,
    Ready,
)
from inference.errors import GpuBusy  # noqa: E402
from inference.gpu.coordinator.config import CoordinatorConfig  # noqa: E402
from inference.gpu.coordinator.watcher import watch_loop  # noqa: E402
from inference.gpu.device.lock import GpuLock, gpu_lock  # noqa: E402
from inference.gpu.device.port import SimulatedGpu  # noqa: E402
from inference.gpu.lease import factory  # noqa: E402
from inference.gpu.lease.client import LeaseClientOptions  # noqa: E402
from inference.gpu.lease.redis_watch import RedisWatch  # noqa: E402
from inference.gpu.lease.request import Backoff  # noqa: E402
from inference.gpu.protocol import presence  # noqa: E402
from inference.gpu.sdk import tenant as tenant_module  # noqa: E402
from inference.gpu.sdk.tenant import GpuRefused, gpu_tenant  # noqa: E402
from inference.gpu.sdk.use import GpuUse  # noqa: E402
from inference.gpu.transports.remote import OutsideCoordinator  # noqa: E402
from inference.token_stream.entries import AnyEntry  # noqa: E402
from tests.inference.stub_runner import READY, StubRunner  # noqa: E402
from tests.live_stack import PROJECT  # noqa: E402
from tests.neighbours import card_process  # noqa: E402
from tests.neighbours.pause_manager import PauseManager  # noqa: E402

OUR_MARK = "our card"
POLICY = GpuPolicy(min_hold_secs=0.1, max_hold_secs=4.0, linger_secs=0.3, yield_patience_secs=0.5)
LEASE_SECS = 2.0
PAUSE_SECS, FREED_SECS = 1.0, 2.5
# The rule of both sides while Redis is away, six times as fast.
LEAVE_SECS, LONELY_SECS = 2.5, 5.0
# Longer than a tenant that has not ended is ever silent here: Redis frozen, then the tenant. One that is silent for
# longer cannot be told from one that has ended.
SILENT_SECS = 9.0
LOAD_SECS = 0.03
HOLD_SECS = 3600.0


@dataclass(frozen=True)
class Surroundings:
    """Addresses of one neighbourhood; without ``coordinator_url`` the GPU is lent by the built-in coordinator."""

    folder: Path
    redis_url: str
    database: Path
    coordinator_url: str | None = None

    def enter(self) -> None:
        """Make this process one of the neighbourhood. Times are shorter than in a real installation."""
        logging.basicConfig(
            filename=self.folder / "programs.log",
            level=logging.INFO,
            format=f"%(asctime)s {os.getpid()} %(name)s %(message)s",
            force=True,
        )
        logging.getLogger("inference.gpu.sdk").setLevel(logging.DEBUG)
        connections["default"].settings_dict["NAME"] = str(self.database)
        settings.REDIS_URL = settings.GPU_REDIS_URL = self.redis_url
        settings.GPU_COORDINATOR_URL = self.coordinator_url
        settings.GEMMA_DATA_DIR = self.folder
        settings.GEMMA_GPU = "simulated"
        settings.GPU_LEASE_TTL_SECS = LEASE_SECS
        settings.GPU_PAUSE_TIMEOUT, settings.GPU_FREED_TIMEOUT = PAUSE_SECS, FREED_SECS
        settings.GPU_BREAKER_FAILURES, settings.GPU_BREAKER_PAUSE_SECS = 3, 1.0
        os.environ.update(
            GPU_REDIS_URL=self.redis_url, GPU_COORDINATOR_URL=self.coordinator_url or "http://127.0.0.1:9"
        )
        _hasten()


def _hasten() -> None:
    factory.REAP_SECS = 0.3
    OutsideCoordinator.renew_secs = 0.3
    options = functools.partial(LeaseClientOptions, backoff=Backoff(first_secs=0.2, longest_secs=1.0))
    setattr(factory, "LeaseClientOptions", options)  # noqa: B010  a module's name, which mypy would take for a class
    setattr(factory, "RedisWatch", functools.partial(RedisWatch, leave_secs=LEAVE_SECS))  # noqa: B010
    gpu_demand.FAILURE_PAUSE_SECS = 1.0
    usual = CoordinatorConfig.from_settings
    CoordinatorConfig.from_settings = lambda: dataclasses.replace(usual(), resident_secs=SILENT_SECS)  # type: ignore[method-assign]
    presence.ALIVE_MS = round(1000 * SILENT_SECS)
    tenant_module.LISTEN_SECS, tenant_module.RECONNECT_SECS = 0.05, 0.1
    tenant_module.CHECK_SECS, tenant_module.LONELY_SECS = 0.3, LONELY_SECS


class CardMark:
    """A file that is locked while the program's model is on the card; the kernel frees it at the program's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def move(self, is_on_card: bool) -> None:
        if is_on_card and self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        elif not is_on_card and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class CardRunner:
    """A runner whose process does nothing but be on the card. It sends no reply while it is frozen."""

    def __init__(self, folder: Path, deadline: Path, on_frame: OnFrame, on_exit: OnExit) -> None:
        self._arguments = [str(deadline), str(folder / OUR_MARK)]
        lock = gpu_lock(SimulatedGpu.uuid, folder)
        if lock is None:
            raise GpuBusy("another process has the card")
        self._lock: GpuLock = lock
        self._on_frame, self._on_exit = on_frame, on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._is_requested = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> Ready:
        command = [sys.executable, "-m", card_process.__name__, str(os.getpid()), *self._arguments]
        with self._lock:
            process = subprocess.Popen(command, pass_fds=(self._lock.fd,), stdout=subprocess.PIPE, cwd=PROJECT)
        self._process = process
        if self._is_requested:  # killed before there was a process
            process.kill()
        assert process.stdout is not None
        with process.stdout as loaded:
            if not loaded.readline():
                status = process.wait()
                raise RunnerStartError(HAS_LEFT if status == STATUS else "runner_died", f"exit status {status}")
        time.sleep(LOAD_SECS)
        threading.Thread(target=self._await_exit, args=[process], daemon=True).start()
        return READY

    def send(self, frame: Frame) -> None:
        if self._process is not None and not _is_frozen(self._process.pid):
            reply(self._on_frame, frame)

    def stop(self, timeout_secs: float) -> None:
        self.kill()
        if self._process is not None:
            self._process.wait()

    def kill(self) -> None:
        self._is_requested = True
        self._lock.close()
        if self._process is not None:
            self._process.kill()

    def _await_exit(self, process: "subprocess.Popen[bytes]") -> None:
        status = process.wait()
        self._on_exit(RunnerExit(process.pid, status, self._is_requested))


class CpuRunner(StubRunner):
    def __init__(self, on_frame: OnFrame) -> None:
        super().__init__(pid=os.getpid())
        self._on_frame = on_frame

    def send(self, frame: Frame) -> None:
        reply(self._on_frame, frame)


def reply(on_frame: OnFrame, frame: Frame) -> None:
    """Answer as a runner without sequences and checkpoints does."""
    match frame:
        case Export():
            on_frame(Exported([], 1.0))
        case ExportCache():
            on_frame(CacheExported(paths=[], n_bytes=0, ms=1.0, is_complete=True))
        case Import():
            on_frame(Imported(0, 1.0))


def _is_frozen(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def run_worker(pipe: Connection, around: Surroundings) -> None:
    """Our worker as far as the card is concerned. Orders: "chat", "silence", "state" (answered)."""
    around.enter()
    shm = around.folder / f"shm-{os.getpid()}"
    shm.mkdir()
    deadline = Deadline(shm / "deadline")
    parts = GpuParts(
        device=SimulatedGpu(),
        make_runner=functools.partial(_card_runner, around.folder, deadline.path),
        make_lease_client=functools.partial(factory.WorkerLeaseClient, extend_deadline=deadline.extend),
        record=lambda record: None,
        folder=StateFolder(shm, 1 << 20),
        policy=POLICY,
        is_simulated=True,
    )

    def ignore(entries: Sequence[tuple[ActiveGeneration, AnyEntry]]) -> None:
        """No generation runs."""

    dispatcher = Dispatcher(lambda on_frame, on_exit: CpuRunner(on_frame), ignore, gpu=parts)
    dispatcher.begin()
    for order in _orders(pipe):
        if order == "chat":
            dispatcher.hold("chat", HOLD_SECS)
        elif order == "silence":
            dispatcher.release_session("chat")
        else:
            pipe.send(dispatcher.describe()["state"])


def _card_runner(folder: Path, deadline: Path, on_frame: OnFrame, on_exit: OnExit) -> Runner:
    return CardRunner(folder, deadline, on_frame, on_exit)


def run_web(pipe: Connection, around: Surroundings) -> None:
    """A web process: it ends expired leases, or releases orphaned sessions."""
    around.enter()
    loop = watch_loop() or factory.reap_loop()
    assert loop is not None
    loop.begin()
    for _ in _orders(pipe):
        pipe.send("here")


def run_tenant(pipe: Connection, around: Surroundings, name: str, free_secs: float) -> None:
    """A program with our library. Orders: seconds until its memory is free, or "leave"."""
    around.enter()
    card = CardMark(around.folder / name)
    wait_secs = free_secs

    def pause() -> None:
        time.sleep(wait_secs)
        card.move(is_on_card=False)

    def resume() -> None:
        card.move(is_on_card=True)
        time.sleep(LOAD_SECS)

    with gpu_tenant("transcription", on_pause=pause, on_resume=resume) as gpu:
        threading.Thread(target=_transcribe, args=[gpu.use], daemon=True).start()
        for order in _orders(pipe):
            if order == "leave":
                break
            wait_secs = float(order)
    pipe.send("left")


def _transcribe(use: Callable[[], GpuUse]) -> None:
    with suppress(GpuRefused):  # at the end of the tenant
        while True:
            with use():
                time.sleep(0.01)
            time.sleep(0.02)


def run_manager(
    pipe: Connection, around: Surroundings, name: str, free_secs: float, channel_sets: tuple[str, ...]
) -> None:
    """The neighbour's transcription service. Orders: seconds until its memory is free, "deaf", "hears", or "leave"."""
    around.enter()
    wire = redis.Redis.from_url(around.redis_url, socket_connect_timeout=1, socket_timeout=2)
    manager: PauseManager | None = None
    while manager is None:
        try:
            move = CardMark(around.folder / name).move
            manager = PauseManager(wire, channel_sets=channel_sets, free_secs=free_secs, on_move=move)
        except redis.RedisError:
            time.sleep(0.1)
    for order in _orders(pipe):
        if order == "leave":
            break
        if order in ("deaf", "hears"):
            manager.is_deaf = order == "deaf"
        else:
            manager.free_secs = float(order)
    manager.close()
    pipe.send("left")


def _orders(pipe: Connection) -> Iterator[str]:
    """Yield the orders of the test; the process ends with it."""
    with _ended_pipe():
        while True:
            yield str(pipe.recv())


@contextmanager
def _ended_pipe() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        os._exit(0)
