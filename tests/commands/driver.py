"""Management commands as processes beside a running service, and its database afterwards."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.live_stack import PROJECT, LiveStack, wait_until

DEADLINE_SECS = 60.0


class Driver:
    """``owner`` is this test's own, so that rows of others do not count."""

    def __init__(self, stack: LiveStack, folder: Path) -> None:
        self.stack = stack
        self.owner = f"service:{uuid.uuid4().hex}"
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self._started: list[subprocess.Popen[str]] = []

    # ---- batch_prompts ----

    def write(self, *lines: dict[str, Any] | str) -> None:
        """Strings are lines as they are."""
        self.input.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))

    def start_batch(self, *options: str) -> subprocess.Popen[str]:
        return self.start("batch_prompts", str(self.input), str(self.output), "--owner", self.owner, *options)

    def batch(self, *options: str) -> tuple[int, str]:
        """Return exit status and output."""
        return finished(self.start_batch(*options))

    def succeed(self, *options: str) -> None:
        status, stderr = self.batch(*options)
        assert status == 0, stderr

    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text(encoding="utf-8").splitlines()]

    def lines_done(self) -> list[int]:
        return sorted(result["line"] for result in self.results())

    def wait_for_results(self, n: int) -> None:
        def enough() -> bool:
            return self.output.exists() and self.output.read_bytes().count(b"\n") >= n

        wait_until(enough, timeout_secs=DEADLINE_SECS, what=f"{n} results")

    # ---- any command ----

    def start(self, *command: str, **popen: Any) -> subprocess.Popen[str]:  # noqa: ANN401  Popen's own
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), *command], env=self.stack.environment, text=True, **streams
        )
        self._started.append(process)
        return process

    def clean_up(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    # ---- the database ----

    def rows(self, columns: str, condition: str = "1") -> list[Any]:
        """Generations of this test, oldest first."""
        return self.table(
            f"SELECT {columns} FROM inference_generation WHERE owner = ? AND {condition} ORDER BY created_at"  # noqa: S608
        )

    def table(self, query: str) -> list[Any]:
        """The rows of a query with one place for the owner."""
        database = sqlite3.connect(self.stack.data_dir / "gemma.sqlite3", timeout=20)
        try:
            return database.execute(query, [self.owner]).fetchall()
        finally:
            database.close()

    def statuses(self) -> list[str]:
        return [row[0] for row in self.rows("status")]

    def wait_for_rows(self, n: int, condition: str = "1") -> None:
        wait_until(
            lambda: len(self.rows("id", condition)) >= n, timeout_secs=DEADLINE_SECS, what=f"{n} rows {condition}"
        )


def finished(process: subprocess.Popen[str], timeout_secs: float = DEADLINE_SECS) -> tuple[int, str]:
    """Exit status, and both streams together."""
    out, err = process.communicate(timeout=timeout_secs)
    return process.returncode, (out or "") + (err or "")


def interrupt(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGINT)
