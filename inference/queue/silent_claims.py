"""Claims whose worker has died or fallen silent: back to the queue, or failed after too many attempts.

A worker's liveness is judged by a counter that stands still on this process's own monotonic clock, so that no two
clocks are compared. Only time in which this process could read the rows counts, and at its end they could be written:
while the database is away or locked no heartbeat is written either.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from django.conf import settings
from django.db.models import F

from inference.models import Generation
from inference.monitoring.liveness import is_dead, remove_free_locks
from inference.queue.delayed_termination import DelayedTermination
from inference.queue.notify import notify
from inference.queue.results import failed
from inference.queue.termination import terminate_abandoned

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 4
LONGEST_INTERVAL_SECS = 2.0  # of two looks at the heartbeats; time beyond it was no look


@dataclass(frozen=True)
class ObservedHeartbeat:
    """A claim's counter, and for how long it has been observed to stand still."""

    epoch: int
    heartbeat: int
    silent_secs: float = 0.0


class SilentClaims:
    """``holds`` returns whether this process computes a claim itself."""

    def __init__(
        self,
        termination: DelayedTermination,
        *,
        holds: Callable[[UUID, int], bool] = lambda *_: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._termination = termination
        self._holds = holds
        self._clock = clock
        self._looked_at = clock()
        self._heartbeats: dict[UUID, ObservedHeartbeat] = {}
        self._writable_since: float | None = None

    def run_once(self) -> None:
        if any(observed.silent_secs >= settings.CLAIM_TTL_SECS / 2 for observed in self._heartbeats.values()):
            self._check_writable()
        else:
            self._writable_since = None
        columns = ("pk", "claim_epoch", "heartbeat", "attempt", "worker")
        rows = list(Generation.objects.running().values_list(*columns))
        claims = [row for row in rows if not self._holds(row[0], row[1])]
        interval_secs = min(self._clock() - self._looked_at, LONGEST_INTERVAL_SECS)
        self._looked_at = self._clock()
        dead_workers = {worker for worker in {row[4] for row in claims} if is_dead(worker)}
        heartbeats: dict[UUID, ObservedHeartbeat] = {}
        for generation_id, epoch, heartbeat, attempt, worker in claims:
            observed = self._heartbeats.get(generation_id)
            if observed is None or (observed.epoch, observed.heartbeat) != (epoch, heartbeat):
                observed = ObservedHeartbeat(epoch, heartbeat)
            else:
                observed = replace(observed, silent_secs=observed.silent_secs + interval_secs)
            heartbeats[generation_id] = observed
            is_silent = observed.silent_secs >= settings.CLAIM_TTL_SECS and self._is_writable()
            if worker in dead_workers or is_silent:
                self._take_over(generation_id, observed, attempt, worker)
        self._heartbeats = heartbeats
        remove_free_locks(keep={worker for *_, worker in rows})

    def _check_writable(self) -> None:
        """Note since when this process can write without waiting: a locked database can be read, but not be written.

        Raises DatabaseError.
        """
        since, self._writable_since = self._writable_since, None
        began = self._clock()
        Generation.objects.filter(pk=next(iter(self._heartbeats))).update(heartbeat=F("heartbeat"))
        now = self._clock()
        has_waited = now - began >= settings.HEARTBEAT_SECS / 2
        self._writable_since = now if since is None or has_waited else since

    def _is_writable(self) -> bool:
        """Return whether a worker that runs had the time for two heartbeats since the database could be written."""
        since = self._writable_since
        return since is not None and self._clock() - since >= 2 * settings.HEARTBEAT_SECS

    def _take_over(self, generation_id: UUID, observed: ObservedHeartbeat, attempt: int, worker: str) -> None:
        epoch, heartbeat = observed.epoch, observed.heartbeat
        if attempt >= MAX_ATTEMPTS:
            ending = failed("too_many_attempts", f"{attempt} workers were lost while they computed this answer.")
            terminate = partial(terminate_abandoned, epoch=epoch, heartbeat=heartbeat, ending=ending)
            if self._termination.attempt(generation_id, terminate):
                log.error("given up after too many attempts generation=%s attempt=%d", generation_id, attempt)
        elif Generation.objects.take_over(generation_id=generation_id, epoch=epoch, heartbeat=heartbeat):
            log.warning("worker lost, row queued again generation=%s worker=%s", generation_id, worker)
            notify(generation_id)
