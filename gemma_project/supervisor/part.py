"""A supervised process: its command, its state, and the delay before a restart."""

import signal
import subprocess
import time
from dataclasses import dataclass

from gemma_project.supervisor.tether import tethered

FIRST_DELAY_SECS = 0.5
# Users wait meanwhile: a part that was killed a few times is restarted soon, one that cannot run does not load the
# machine with restarts.
LONGEST_DELAY_SECS = 5.0
# After this time a process counts as started: its next exit counts as the first.
STEADY_SECS = 15.0


@dataclass(frozen=True)
class Part:
    """A process of the service. ``stop_secs``: time from SIGTERM to SIGKILL; ``hint``: where its errors are."""

    title: str
    command: list[str]
    stop_secs: float
    pass_fds: tuple[int, ...] = ()
    hint: str = "the lines above say why"


class PartProcess:
    """The process of a part. Started again by ``start``; ``n_exits`` in a row make the delay longer."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.n_exits = 0
        self.restart_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which knows the order.
        self._process = subprocess.Popen(
            tethered(self.part.command),
            stdin=subprocess.DEVNULL,
            pass_fds=self.part.pass_fds,
            start_new_session=True,
        )
        self._started_at = time.monotonic()
        self.restart_at = None

    def reap(self) -> str | None:
        """Return the exit of the process, once; None while it runs or before its start."""
        if self._process is None or self._process.poll() is None:
            return None
        status = self._process.returncode
        self._process = None
        now = time.monotonic()
        self.n_exits = 1 if now - self._started_at >= STEADY_SECS else self.n_exits + 1
        self.restart_at = now + self.delay_secs
        return describe_exit(status)

    def defer_start(self) -> None:
        """Count a failed start as an exit."""
        self.n_exits += 1
        self.restart_at = time.monotonic() + self.delay_secs

    @property
    def delay_secs(self) -> float:
        """Seconds to wait after this number of exits in a row: doubling, bounded."""
        return min(LONGEST_DELAY_SECS, FIRST_DELAY_SECS * 2.0 ** max(0, self.n_exits - 1))

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


def describe_exit(status: int) -> str:
    """Describe an exit status as subprocess reports it (negative: a signal)."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
