"""A running service and the ways to break it: kill and freeze its parts, add workers, lock and fill its database."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import psutil

from gemma_project.supervisor.tether import tethered
from tests.live_stack import PROJECT, LiveStack, wait_until

HEALTHY_SECS = 60.0


@dataclass(frozen=True)
class Row:
    """A generation as the database has it."""

    id: str
    status: str
    text: str
    attempt: int
    epoch: int
    worker: str
    error_code: str


class FaultStack(LiveStack):
    """A LiveStack that counts the deaths it was made to suffer."""

    n_deaths = 0

    def kill(self, title: str) -> psutil.Process:
        """kill -9; the supervisor (of a runner: the worker) starts another."""
        process = self.process(title)
        process.kill()
        psutil.wait_procs([process], timeout=5)
        self.n_deaths += 1
        return process

    def wait_for(self, title: str) -> None:
        """Until it runs (again)."""
        wait_until(
            lambda: any(words.startswith(title) for words in self.titles().values()),
            timeout_secs=HEALTHY_SECS,
            what=f"{title} runs\n{self.output[-4000:]}",
        )

    @contextmanager
    def frozen(self, title: str) -> Iterator[psutil.Process]:
        """SIGSTOP while inside."""
        process = self.process(title)
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)

    @contextmanager
    def second_worker(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Another `manage.py worker` on the same database and broker, as on a second machine."""
        environment = {**self.environment}
        environment.setdefault("REDIS_URL", f"unix://{self.data_dir}/run/valkey.sock")
        with (self.data_dir / "second-worker.log").open("ab") as output:
            worker = subprocess.Popen(
                tethered([sys.executable, str(PROJECT / "manage.py"), "worker"]),
                env=environment,
                stdout=output,
                stderr=output,
                cwd=self.data_dir,
            )
        try:
            yield worker
        finally:
            worker.terminate()
            worker.wait(30)

    def health(self) -> httpx.Response:
        return httpx.get(f"{self.url}/health", timeout=10)

    def is_healthy(self) -> bool:
        try:
            return self.health().status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def wait_until_healthy(self) -> float:
        """Returns how long that took, in seconds."""
        began = time.monotonic()
        wait_until(self.is_healthy, timeout_secs=HEALTHY_SECS, what=f"the service is healthy\n{self.output[-4000:]}")
        return time.monotonic() - began

    # ---- the database ----

    @property
    def database(self) -> str:
        return str(self.data_dir / "gemma.sqlite3")

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=20)) as connection:
            return connection.execute(sql, values).fetchall()

    def rows(self, generation_id: str | None = None) -> list[Row]:
        """Generations, the newest last."""
        columns = "id, status, text, attempt, claim_epoch, worker, error_code"
        sql = f"SELECT {columns} FROM inference_generation"  # noqa: S608  the names above
        if generation_id:
            found = self.query(f"{sql} WHERE id = ?", generation_id.replace("-", ""))
        else:
            found = self.query(f"{sql} ORDER BY created_at")
        return [Row(str(UUID(hex_id)), *rest) for hex_id, *rest in found]

    def row(self, generation_id: str) -> Row:
        (row,) = self.rows(generation_id)
        return row

    def has_ended(self, generation_id: str) -> bool:
        return self.row(generation_id).status in ("complete", "interrupted", "failed")

    @contextmanager
    def locked_database(self, secs: float) -> Iterator[None]:
        """Hold the database's write lock for that long, from before the body on, possibly past its end."""
        has_begun = threading.Event()

        def hold() -> None:
            with closing(sqlite3.connect(self.database, timeout=20, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                has_begun.set()
                time.sleep(secs)
                connection.execute("ROLLBACK")

        holder = threading.Thread(target=hold)
        holder.start()
        assert has_begun.wait(30)
        try:
            yield
        finally:
            holder.join()

    @contextmanager
    def quota(self, n_bytes: int) -> Iterator[None]:
        """No file of the web process and the worker grows beyond that, as on a disk without room for them."""
        processes = [self.process("gemma-web"), self.process("gemma-worker")]
        limits = [process.rlimit(psutil.RLIMIT_FSIZE) for process in processes]
        for process, (_, hard) in zip(processes, limits, strict=True):
            process.rlimit(psutil.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            for process, limit in zip(processes, limits, strict=True):
                process.rlimit(psutil.RLIMIT_FSIZE, limit)
