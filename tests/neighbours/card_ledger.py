"""Who is on the card, seen from outside: each program holds a file lock while its model is loaded.

The kernel frees such a lock when its process ends. The ledger measures how long the card was empty, how long a
resident remained paused without a reason, and whether two programs ever had it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECS = 0.004
LOCKS = Path("/proc/locks")
OURS = "ours"


@dataclass(frozen=True)
class Situation:
    """Facts that the locks do not show. ``residents``: those that run, each with the time from which it could know that
    it may use the card; ``chat_ended_at`` None: a chat is active. All times are monotonic."""

    residents: dict[str, float]
    chat_ended_at: float | None


@dataclass(frozen=True)
class Crowd:
    """Two programs on the card in one look; ``note``: what the test knows about that moment. ``is_ours``: not the doing
    of a neighbour alone, before the look and after it."""

    names: frozenset[str]
    note: str
    is_ours: bool


@dataclass
class CardLedger:
    """``files`` by the name of the program; more may be added. ``linger_secs``: after a chat the card may be kept."""

    files: dict[str, Path]
    situation: Callable[[], Situation]
    linger_secs: float
    note: Callable[[], str] = lambda: ""
    is_our_doing: Callable[[], bool] = lambda: True
    log: Callable[[str], object] = lambda text: None
    crowds: list[Crowd] = field(default_factory=list)
    n_looks: int = 0
    n_grants: int = 0  # the card came to us
    longest_empty_secs: float = 0.0
    longest_paused_secs: float = 0.0
    longest_chat_wait_secs: float = 0.0
    longest_gap_secs: float = 0.0  # between two looks
    _empty_since: float | None = None
    _off_since: dict[str, float] = field(default_factory=dict)
    _chat_off_since: float | None = None
    _last: frozenset[str] = frozenset()
    _looked_at: float = 0.0

    def look(self) -> frozenset[str]:
        situation, is_our_doing = self.situation(), self.is_our_doing()
        locked = _locked_inodes()
        now = time.monotonic()
        present = frozenset(name for name, path in self.files.items() if _inode(path) in locked)
        self.n_looks += 1
        if self._looked_at:
            self.longest_gap_secs = max(self.longest_gap_secs, now - self._looked_at)
        self._looked_at = now
        if OURS in present and len(present) > 1:
            self._note_crowd(Crowd(present, self.note(), is_our_doing and self.is_our_doing()))
        if present != self._last:
            self.log(f"on the card: {sorted(present)}")
        self.n_grants += OURS in present and OURS not in self._last
        self._last = present
        self._measure_emptiness(present, situation, now)
        self._measure_pauses(present, situation, now)
        self._measure_chat(present, situation, now)
        return present

    def _note_crowd(self, crowd: Crowd) -> None:
        """Note a crowd once for as long as it lasts, and again when it becomes ours."""
        known = self.crowds[-1] if self.crowds else None
        is_new = known is None or crowd.names != self._last
        if is_new:
            self.log(f"crowd {sorted(crowd.names)} {crowd.note}")
        if is_new or (known is not None and crowd.is_ours and not known.is_ours):
            self.crowds.append(crowd)

    def _measure_emptiness(self, present: frozenset[str], situation: Situation, now: float) -> None:
        if present or not (situation.residents or situation.chat_ended_at is None):
            self._empty_since = None
            return
        began = max(self._empty_since or now, min(situation.residents.values(), default=0.0))
        self._empty_since = began
        self.longest_empty_secs = max(self.longest_empty_secs, now - began)

    def _measure_pauses(self, present: frozenset[str], situation: Situation, now: float) -> None:
        """Measure for each resident from the moment at which nothing kept it off the card any more."""
        for name in list(self._off_since):
            if name in present or name not in situation.residents:
                del self._off_since[name]
        if situation.chat_ended_at is None:
            self._off_since.clear()
            return
        for name, since in situation.residents.items():
            if name not in present:
                began = max(self._off_since.setdefault(name, now), since, situation.chat_ended_at + self.linger_secs)
                self.longest_paused_secs = max(self.longest_paused_secs, now - began)

    def _measure_chat(self, present: frozenset[str], situation: Situation, now: float) -> None:
        if situation.chat_ended_at is not None or OURS in present:
            self._chat_off_since = None
            return
        self._chat_off_since = self._chat_off_since or now
        self.longest_chat_wait_secs = max(self.longest_chat_wait_secs, now - self._chat_off_since)


class LedgerThread:
    """Looks until the block ends."""

    def __init__(self, ledger: CardLedger) -> None:
        self._ledger = ledger
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECS):
            self._ledger.look()


def _locked_inodes() -> set[int]:
    """Return the inodes of all files with a lock on this machine."""
    lines = LOCKS.read_text().splitlines()
    return {int(line.split()[-3].rpartition(":")[2]) for line in lines if " FLOCK " in line and "->" not in line}


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1
