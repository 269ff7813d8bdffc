"""Records of the sessions at an outside coordinator, which knows no expiry: a session that its process does not
release pauses the residents for ever.

A store holds a file lock while its process runs. Its sessions become orphans when that lock is free, or, seen from
another machine, when their beat stands still; any process of the installation then takes them over. Knows no HTTP.
"""

import fcntl
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connections
from django.db.models import F
from django.db.models.functions import Now

from inference.models.gpu import OutsideSession
from inference.runtime.file_locks import is_free

log = logging.getLogger(__name__)

BEAT_SECS = 10.0
# Longer than a call of ``acquire``, during which nothing beats.
SILENT_SECS = 150.0
LONGEST_RELEASE = timedelta(seconds=10)  # until a release whose answer did not come has arrived or is lost
FRESH_FILE_SECS = 60.0  # a file this young may not be locked yet


class OutsideSessionStore:
    """Sessions of one owner; implements ``transports.port.SessionRecords``. For any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}-{secrets.token_hex(4)}"
        self._folder = Path(settings.GEMMA_DATA_DIR) / "gpu-sessions"
        self._clock = clock
        self._beaten_at = float("-inf")
        self._unremoved: set[str] = set()  # sessions that ended while the database was away
        self._beats: dict[str, tuple[int, float]] = {}  # of other owners' sessions: the beat, and since when
        self._descriptor = -1
        self._lock = threading.Lock()

    def add(self, session_id: str) -> None:
        """Raises DatabaseError or OSError: a session without a record must not be requested."""
        self._hold_lock()
        try:
            OutsideSession.objects.create(session_id=session_id, owner=self.owner)
        finally:
            connections.close_all()

    def remove(self, session_id: str) -> None:
        self._unremoved.add(session_id)
        self._remove_rows()

    def hand_over(self, session_id: str) -> None:
        with _logged_failures():
            OutsideSession.objects.filter(pk=session_id, owner=self.owner).update(owner="")

    def mark_release(self, session_id: str, *, is_under_way: bool) -> None:
        with _logged_failures():
            rows = OutsideSession.objects.filter(pk=session_id)
            rows.update(releasing_at=Now() if is_under_way else None)

    def is_release_under_way(self) -> bool:
        try:
            return OutsideSession.objects.filter(releasing_at__gte=Now() - LONGEST_RELEASE).exists()
        finally:
            connections.close_all()

    def beat(self) -> None:
        if self._clock() - self._beaten_at < BEAT_SECS:
            return
        self._beaten_at = self._clock()
        with _logged_failures():
            OutsideSession.objects.filter(owner=self.owner).update(beat=F("beat") + 1)
        self._remove_rows()

    def close(self) -> None:
        """Free the lock, as the end of the process does: the sessions that are left become orphans."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    # ---- sessions of other owners ----

    def has_other_sessions(self) -> bool:
        """Return whether another owner has a session. Raises DatabaseError."""
        return OutsideSession.objects.exclude(owner__in=("", self.owner)).exists()

    def take_orphans(self) -> dict[str, bool]:
        """Take orphans over; by session, whether its last owner sent a release. Raises DatabaseError, OSError."""
        self._hold_lock()
        rows = list(OutsideSession.objects.exclude(owner=self.owner))
        orphans = [row for row in rows if not row.owner or self._is_dead(row)]
        self._beats = {row.pk: self._beats[row.pk] for row in rows if row.pk in self._beats}
        is_released_by_id: dict[str, bool] = {}
        for row in orphans:
            # Other processes look for orphans, too: the first conditional update wins.
            unchanged = OutsideSession.objects.filter(pk=row.pk, owner=row.owner, beat=row.beat)
            if unchanged.update(owner=self.owner, beat=F("beat") + 1) == 1:
                log.info("session of the outside coordinator taken over session=%s owner=%s", row.pk, row.owner)
                is_released_by_id[row.pk] = not row.owner
        self._remove_files(keep={row.owner for row in rows} | {self.owner})
        return is_released_by_id

    def _is_dead(self, row: OutsideSession) -> bool:
        if row.owner.startswith(f"{socket.gethostname()}:") and (self._folder / row.owner).exists():
            return is_free(self._folder / row.owner)
        beat, since = self._beats.get(row.pk, (-1, 0.0))
        if beat != row.beat:
            beat, since = self._beats[row.pk] = (row.beat, self._clock())
        return self._clock() - since >= SILENT_SECS

    def _remove_rows(self) -> None:
        if self._unremoved:
            with _logged_failures():
                OutsideSession.objects.filter(pk__in=self._unremoved).delete()
                self._unremoved.clear()

    def _remove_files(self, keep: Container[str]) -> None:
        for path in self._folder.iterdir():
            is_old = time.time() - path.stat().st_mtime > FRESH_FILE_SECS
            if is_old and path.name not in keep and is_free(path):
                path.unlink(missing_ok=True)

    def _hold_lock(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                return
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._folder / self.owner, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _logged_failures() -> Iterator[None]:
    """Log a failed write: the record is late then, and its owner or the reaper writes it later."""
    try:
        yield
    except DatabaseError as error:
        log.warning("session of the outside coordinator not recorded error=%s", error)
    finally:
        connections.close_all()
