"""Looking after rows that nobody looks after: silent owners, lost rings, passed deadlines, unbuilt prompts, ends that
nothing followed.

Every worker sweeps; each move is conditional, so that two sweeps do it once. Time is this process's own
monotonic clock wherever another's liveness is judged: a counter that stands still, not a time stamp that looks old.
Only time in which the sweep itself could look counts: while the database is away, nobody's heartbeat gets there.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.models.querysets import GenerationQuerySet
from inference.monitoring.liveness import is_dead, tidy
from inference.queue.deadlines import Deadlines
from inference.queue.notify import notify
from inference.queue.results import CANCELLED, TIMED_OUT, failed
from inference.queue.termination import LOG_PATIENCE_SECS, terminate, terminate_abandoned
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log

log = logging.getLogger(__name__)

REAP_SECS = 1.0
LONGEST_LOOK_SECS = 2 * REAP_SECS
MAX_ATTEMPTS = 4
RING_AGAIN_AFTER_SECS = 2.0
PREPARE_AGAIN_AFTER_SECS = 10.0
FOLLOW_UP_AGAIN_AFTER_SECS = 5.0
LOGS_EVERY_SECS = 15.0
LOG_END_SECS = 10.0  # after its row a log has its End within moments, or never
LOGS_OF_SECS = 600.0  # how far back a new sweep looks
BATCH_ROWS = 200


@dataclass(frozen=True)
class Beat:
    """What was seen of an owner's heartbeat, and for how long it was seen to stand still."""

    epoch: int
    heartbeat: int
    silent_secs: float = 0.0


class Reaper:
    """``free_slots`` says how many rings this worker could answer at once, ``holds`` which claims live in it."""

    def __init__(
        self,
        free_slots: Callable[[], int],
        *,
        holds: Callable[[UUID, int], bool] = lambda *_: False,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free_slots = free_slots
        self._holds = holds
        self._clock = clock
        self._deadlines = deadlines or Deadlines(clock)
        self._looked_at = clock()
        self._looked_at_logs = clock() - LOGS_OF_SECS
        self._log_awaited: dict[UUID, float] = {}
        self._log_awaited_before = self._log_awaited
        self._beats: dict[UUID, Beat] = {}
        self._prepare_rung: dict[UUID, float] = {}
        self._follow_up_rung: dict[UUID, float] = {}

    def run_once(self) -> None:
        """One look at everything."""
        self._log_awaited_before, self._log_awaited = self._log_awaited, {}
        self._take_over_silent()
        self._end_unwanted()
        self._ring_for_queued()
        self._ring_for_preparing()
        self._ring_for_follow_ups()
        self._forget_open_logs()
        self._forget_ephemeral()

    def _take_over_silent(self) -> None:
        rows = list(Generation.objects.running().values_list("pk", "claim_epoch", "heartbeat", "attempt", "worker"))
        found = [row for row in rows if not self._holds(row[0], row[1])]
        looked_secs = min(self._clock() - self._looked_at, LONGEST_LOOK_SECS)
        self._looked_at = self._clock()
        dead = {worker for worker in {row[4] for row in found} if is_dead(worker)}
        seen: dict[UUID, Beat] = {}
        for generation_id, epoch, heartbeat, attempt, worker in found:
            before = self._beats.get(generation_id)
            beat = Beat(epoch, heartbeat)
            if before is not None and (before.epoch, before.heartbeat) == (epoch, heartbeat):
                beat = replace(beat, silent_secs=before.silent_secs + looked_secs)
            seen[generation_id] = beat
            if worker in dead or beat.silent_secs >= settings.CLAIM_TTL_SECS:
                self._take_over(generation_id, beat, attempt)
        self._beats = seen
        tidy(keep={worker for *_, worker in rows})

    def _take_over(self, generation_id: UUID, beat: Beat, attempt: int) -> None:
        if attempt >= MAX_ATTEMPTS:
            ending = failed("too_many_attempts", f"{attempt} workers were lost while computing this")
            end = partial(terminate_abandoned, epoch=beat.epoch, heartbeat=beat.heartbeat, ending=ending)
            if self._end(generation_id, end):
                log.error("generation %s: given up after %d attempts", generation_id, attempt)
        elif Generation.objects.take_over(generation_id=generation_id, epoch=beat.epoch, heartbeat=beat.heartbeat):
            log.warning("generation %s: its worker is gone or silent; back to the queue", generation_id)
            notify(generation_id)

    def _end_unwanted(self) -> None:
        # A cancel that came while its worker was dying is still wanted.
        for generation_id in _ids(Generation.objects.queued().filter(cancel_requested=True)):
            self._end(generation_id, partial(terminate, ending=CANCELLED))
        unfinished = Generation.objects.with_deadline().values_list("pk", "deadline_at", "timeout_secs")
        for generation_id in self._deadlines.overdue(unfinished):
            # What runs keeps its own time and is not touched by this.
            self._end(generation_id, partial(terminate, ending=TIMED_OUT))

    def _end(self, generation_id: UUID, end: Callable[..., bool]) -> bool:
        """Call one of the endings; while Redis is away the next sweep tries again, until it has been away too long."""
        now = self._clock()
        awaited_at = self._log_awaited_before.get(generation_id, now)
        try:
            return end(generation_id, without_log=now - awaited_at >= LOG_PATIENCE_SECS)
        except StoreUnavailable as error:
            self._log_awaited[generation_id] = awaited_at
            log.info("generation %s: its end waits for what it has said: %s", generation_id, error)
            return False

    def _ring_for_queued(self) -> None:
        """As many rings as this worker can answer; each is answered by whichever row is next."""
        free = self._free_slots()
        if free > 0:
            waiting_since = timezone.now() - timedelta(seconds=RING_AGAIN_AFTER_SECS)
            rows = Generation.objects.queued().filter(queued_at__lt=waiting_since)
            for generation_id in rows.order_by("queued_at").values_list("pk", flat=True)[:free]:
                if not notify(generation_id):  # the broker is away; the next sweep tries again
                    return

    def _ring_for_preparing(self) -> None:
        now = self._clock()
        rung: dict[UUID, float] = {}
        stuck = Generation.objects.stuck_preparing(timezone.now(), after_secs=PREPARE_AGAIN_AFTER_SECS)
        for generation_id, task in stuck.values_list("pk", "prepare_task")[:BATCH_ROWS]:
            if not task:
                terminate(generation_id, failed("not_prepared", "whoever should have built the prompt is gone"))
                continue
            rung[generation_id] = self._prepare_rung.get(generation_id, now - PREPARE_AGAIN_AFTER_SECS)
            if now - rung[generation_id] >= PREPARE_AGAIN_AFTER_SECS:
                rung[generation_id] = now
                notify(generation_id, task)
        self._prepare_rung = rung

    def _ring_for_follow_ups(self) -> None:
        """The end itself rang; this is for when nobody heard it. Seen first now, a row gets that much time."""
        now = self._clock()
        rung: dict[UUID, float] = {}
        for generation_id, task in Generation.objects.to_follow_up().values_list("pk", "follow_up_task")[:BATCH_ROWS]:
            rung[generation_id] = self._follow_up_rung.get(generation_id, now)
            if now - rung[generation_id] >= FOLLOW_UP_AGAIN_AFTER_SECS:
                rung[generation_id] = now
                notify(generation_id, task)
        self._follow_up_rung = rung

    def _forget_ephemeral(self) -> None:
        rows = Generation.objects.forgettable(timezone.now(), after_secs=settings.TOKEN_LOG_TTL_SECS)
        ids = _ids(rows)
        if ids:
            redis_log.forget(shared_client(), ids)
            Generation.objects.filter(pk__in=ids).delete()

    def _forget_open_logs(self) -> None:
        """A worker died between a row's end and its log's: readers have the row, and the log would lie there a day."""
        now = self._clock()
        since_secs = now - self._looked_at_logs
        if since_secs < LOGS_EVERY_SECS:
            return
        ended = Generation.objects.ended_lately(
            timezone.now(), from_secs=LOG_END_SECS, to_secs=2 * LOG_END_SECS + since_secs
        )
        ids = list(ended.values_list("pk", flat=True))
        open_logs = redis_log.without_end(shared_client(), ids) if ids else []
        if open_logs:
            log.info("%d logs of ended generations were never ended; removed", len(open_logs))
            redis_log.forget(shared_client(), open_logs)
        # Not before: what ended while Redis was away is looked at when it is back.
        self._looked_at_logs = now


def _ids(rows: GenerationQuerySet) -> list[UUID]:
    return list(rows.values_list("pk", flat=True)[:BATCH_ROWS])
