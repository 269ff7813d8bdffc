"""Worker processes as an operator runs them (`manage.py worker`), on the test's own database and Redis."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from django.conf import settings
from django.db import connection

PROJECT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """One `manage.py worker` on the fake model, with short times."""

    arguments = ["manage.py", "worker"]

    def __init__(self, folder: Path, **environment: str) -> None:
        self._output = (folder / f"worker-{len(list(folder.iterdir()))}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, *self.arguments],
            cwd=PROJECT,
            stdout=self._output,
            stderr=self._output,
            env={
                **os.environ,
                "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
                "REDIS_URL": settings.REDIS_URL,
                "CLAIM_TTL_SECS": "2",
                "HEARTBEAT_SECS": "0.3",
                "DRAIN_SECS": "0.5",
                **environment,
            },
        )

    @property
    def output(self) -> str:
        return Path(self._output.name).read_text(encoding="utf-8", errors="replace")

    @property
    def name_part(self) -> str:
        """Return the part of a row's ``worker`` that names this process."""
        return f":{self._process.pid}:"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_secs: float) -> int:
        return self._process.wait(timeout_secs)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def clean_up(self) -> None:
        if self.is_alive:
            self.signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
        self._output.close()
