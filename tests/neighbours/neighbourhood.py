"""One card and those who share it: our worker and web process, a coordinator, residents, and a Redis between them."""

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import redis

from tests.faults.broker import Broker
from tests.neighbours import programs
from tests.neighbours.card_ledger import OURS, CardLedger, Situation
from tests.neighbours.coordinator import NeighbourCoordinator
from tests.neighbours.programs import FREED_SECS, OUR_MARK, PAUSE_SECS, POLICY, Surroundings

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([programs.__name__, "pytest"])
ANSWER_SECS = 5.0
CHANNEL_SETS = {"theirs, old": ("v1",), "theirs, new": ("v2",), "theirs, both": ("v1", "v2")}
USUAL_FREE_SECS, SLOW_FREE_SECS = 0.1, 1.0


@dataclass(frozen=True)
class Combination:
    """``coordinator``: "ours", "v1" or "v2"; ``tenant``: "ours" or one of ``CHANNEL_SETS``."""

    coordinator: str
    tenant: str

    @property
    def can_meet(self) -> bool:
        """False for a coordinator that pauses on a set of channels to which its tenant does not listen."""
        return self.coordinator == "ours" or self.coordinator in CHANNEL_SETS.get(self.tenant, ("v1", "v2"))

    def __str__(self) -> str:
        return f"{self.coordinator} x {self.tenant}"


@dataclass
class Program:
    """A running process. ``ready_at``: since when it can know the state of the card."""

    process: BaseProcess
    pipe: Connection
    ready_at: float
    is_frozen: bool = False

    def order(self, text: str) -> None:
        with suppress(OSError):
            self.pipe.send(text)

    def ask(self, text: str) -> object:
        """Return the answer; None from a process that is dead or frozen."""
        try:
            self.pipe.send(text)
            return self.pipe.recv() if self.pipe.poll(ANSWER_SECS) else None
        except (OSError, EOFError):
            return None

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        self.is_frozen = number == signal.SIGSTOP


@dataclass
class Neighbourhood:
    """``database`` is a migrated file that is copied."""

    combination: Combination
    folder: Path
    database: Path
    programs: dict[str, Program] = field(default_factory=dict)
    is_chat_active: bool = False
    chat_ended_at: float = 0.0
    last_fault: str = ""
    doubtful: dict[str, float] = field(default_factory=dict)  # residents that may have lost a message, since when
    n_started: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.broker = Broker()
        self.ledger = CardLedger(
            {OURS: self.folder / OUR_MARK},
            self._situation,
            POLICY.linger_secs,
            note=self._moment,
            is_our_doing=self._is_our_doing,
            log=self.log,
        )

    # ---- beginning and end ----

    def begin(self) -> None:
        self.broker.start()
        with sqlite3.connect(self.folder / "ledger.sqlite3") as copy, sqlite3.connect(self.database) as original:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=WAL")
        self.wire: redis.Redis[bytes] = redis.Redis.from_url(
            self.broker.url, socket_connect_timeout=0.5, socket_timeout=1.0
        )
        self.coordinator: NeighbourCoordinator | None = None
        if self.combination.coordinator != "ours":
            self.coordinator = NeighbourCoordinator(
                self.wire, self.combination.coordinator, pause_secs=PAUSE_SECS, freed_secs=FREED_SECS
            )
            self.coordinator.log = self.log
        url = self.coordinator.url if self.coordinator else None
        self.around = Surroundings(self.folder, self.broker.url, self.folder / "ledger.sqlite3", url)
        self.start("web", programs.run_web)
        self.start("worker", programs.run_worker)
        self.start_resident("resident 1")

    def log(self, text: str) -> None:
        """Write a line of the test between those of the programs, whose log shows what led to a failure."""
        at = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")  # noqa: DTZ005  as logging has it
        with (self.folder / "programs.log").open("a") as file:
            file.write(f"{at} test {text}\n")

    def end(self) -> None:
        for program in self.programs.values():
            program.kill()
        for runner in self._runners():
            runner.kill()
        if self.coordinator is not None:
            self.coordinator.stop()
        self.wire.close()
        self.broker.clean_up()

    # ---- processes ----

    def start(self, name: str, main: Callable[..., None], *arguments: object) -> None:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=main, args=(theirs, self.around, *arguments), daemon=True)
        process.start()
        theirs.close()
        self.log(f"started {name} {process.pid}")
        with self.lock:
            self.programs[name] = Program(process, ours, time.monotonic())

    def start_resident(self, name: str) -> None:
        self.n_started += 1
        file = f"{name} {self.n_started}"
        self.ledger.files = self.ledger.files | {name: self.folder / file}
        if self.combination.tenant == "ours":
            self.start(name, programs.run_tenant, file, USUAL_FREE_SECS)
        else:
            sets = CHANNEL_SETS[self.combination.tenant]
            self.start(name, programs.run_manager, file, USUAL_FREE_SECS, sets)

    def kill(self, name: str) -> None:
        with self.lock:
            program = self.programs.pop(name, None)
        if program is not None:
            program.kill()

    def leave(self, name: str) -> None:
        """End a resident as its operator does."""
        with self.lock:
            program = self.programs.get(name)
        if program is not None:
            program.ask("leave")
        self.kill(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        self.programs[name].signal(signal.SIGSTOP)
        try:
            yield
        finally:
            program = self.programs[name]
            program.signal(signal.SIGCONT)
            program.ready_at = time.monotonic()

    def runner(self) -> psutil.Process | None:
        """Return the process on the card."""
        return next(iter(self._runners()), None)

    def _runners(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cmdline()[-1:] == [str(self.folder / OUR_MARK)]:
                    found.append(process)
        return found

    # ---- the chat ----

    def chat(self, *, is_active: bool) -> None:
        with self.lock:
            if self.is_chat_active and not is_active:
                self.chat_ended_at = time.monotonic()
            self.is_chat_active = is_active
        self.tell_worker()

    def tell_worker(self) -> None:
        worker = self.programs.get("worker")
        if worker is not None:
            worker.order("chat" if self.is_chat_active else "silence")

    def worker_state(self) -> str:
        """Return the state of the dispatcher, empty without an answer."""
        worker = self.programs.get("worker")
        answer = worker.ask("state") if worker is not None and not worker.is_frozen else None
        return answer if isinstance(answer, str) else ""

    # ---- facts for the ledger ----

    @property
    def residents(self) -> list[str]:
        with self.lock:
            return [name for name in self.programs if name.startswith("resident")]

    def messages_lost(self) -> None:
        """Every resident may have missed a message up to now."""
        now = time.monotonic()
        with self.lock:
            for name in self.residents:
                self.programs[name].ready_at = now
                self.doubtful[name] = now

    def _situation(self) -> Situation:
        with self.lock:
            alive = {name: self.programs[name].ready_at for name in self.residents if not self.programs[name].is_frozen}
            ended_at = None if self.is_chat_active else self.chat_ended_at
            return Situation(alive, ended_at)

    def _is_our_doing(self) -> bool:
        """Their coordinator may grant the card while its own tenant has not left, or that one comes back too early."""
        if self.coordinator is None or self.combination.tenant == "ours":
            return True
        return not (self.coordinator.session and self.coordinator.state == "gemma")

    def _moment(self) -> str:
        right = self.coordinator.session if self.coordinator else ""
        return f"{self.last_fault}; chat={self.is_chat_active}; theirs lends to {right!r}"
