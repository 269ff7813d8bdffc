"""Acquisition of the GPU, from the wait queue to the grant, in short steps that the waiting caller repeats.

Knows the ledger, the queue and the residents; neither HTTP nor threads.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import redis
from django.db import DatabaseError
from django.utils import timezone

from inference.gpu.coordinator import broadcast, lease, preemption, ttl
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.preemption import ResidentPause, TenantReplies
from inference.gpu.coordinator.wait_queue import QueueEntry, Waiter
from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState

log = logging.getLogger(__name__)

RECALL_SECS = 1.0
# Pause between two steps: short while the residents leave; in the queue it grows with the time waited, so that many
# waiters cost no more than a few.
EMPTYING_STEP_SECS = 0.03
MIN_STEP_SECS, MAX_STEP_SECS = 0.05, 0.5


@dataclass(frozen=True)
class AcquisitionGranted:
    epoch: int
    waited_secs: float


@dataclass(frozen=True)
class AcquisitionRefused:
    reason: str
    waited_secs: float


Verdict = AcquisitionGranted | AcquisitionRefused


class Acquisition:
    """Call ``step`` until it returns a verdict, or ``cancel``, from any threads; one of the two has to complete."""

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        config: CoordinatorConfig,
        *,
        waiter: Waiter,
        timeout_secs: float,
        renews: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = client
        self._config = config
        self._waiter = waiter
        self._renews = renews
        self._clock = clock
        self._began = clock()
        self._deadline = self._began + timeout_secs
        self._entry = QueueEntry.new(client, waiter)
        self._watcher = lease.LeaseWatcher(config, clock=clock)
        self._replies: TenantReplies | None = None
        self._pause: ResidentPause | None = None
        self._row: GpuLedger | None = None  # as this acquisition wrote it when it became the first in the queue
        self._recalled_at = float("-inf")
        self.waits_for = ""  # reason of the wait, for users
        self._is_cancelled = False
        self._lock = threading.Lock()

    @property
    def waited_secs(self) -> float:
        return self._clock() - self._began

    @property
    def pause_secs(self) -> float:
        """Seconds until the next step."""
        if self._row is not None:
            return EMPTYING_STEP_SECS
        return min(MAX_STEP_SECS, max(MIN_STEP_SECS, self.waited_secs / 10))

    def step(self) -> Verdict | None:
        """Return the verdict, or None: not yet. A failure is a refusal: the GPU is never granted in doubt."""
        with self._lock:
            if self._is_cancelled:
                return self._refused("the request was withdrawn")
            try:
                verdict = self._wait_in_queue() if self._row is None else self._await_residents(self._row)
            except (redis.RedisError, DatabaseError) as error:
                log.warning("acquisition failed requester=%s error=%s", self._waiter.requester, error)
                verdict = self._refused("the coordinator cannot reach Redis or its database")
            if verdict is not None:
                self._leave(ends_lease=isinstance(verdict, AcquisitionRefused))
            return verdict

    def cancel(self) -> None:
        """Give up the place in the queue, and a lease that was just granted."""
        with self._lock:
            self._is_cancelled = True
            self._leave(ends_lease=True)

    def _leave(self, *, ends_lease: bool) -> None:
        # Without Redis the queue entry expires within seconds, and a half-made lease with its TTL.
        with suppress(redis.RedisError, DatabaseError):
            self._entry.leave()
        with suppress(redis.RedisError, DatabaseError):
            if self._replies is not None:
                self._replies.close()
        with suppress(redis.RedisError, DatabaseError):
            if ends_lease and self._row is not None:
                lease.finish(self._redis, self._row, "its acquisition failed")

    # ---- in the queue ----

    def _wait_in_queue(self) -> Verdict | None:
        row = GpuLedger.objects.current()
        if row.state == LedgerState.HELD and row.session_id == self._waiter.session_id:
            # Requested again after its answer was lost.
            return AcquisitionGranted(row.epoch, self.waited_secs)
        self.waits_for = f"{row.requester} holds the GPU" if row.requester else ""
        if self._clock() >= self._deadline:
            return self._refused(self.waits_for or "another program holds the GPU")
        self._entry.refresh()
        if row.state != LedgerState.FREE:
            self._watcher.check(self._redis, row)
            self._recall(row)
        elif self._entry.is_first():
            self._begin_pause(row)
        return None

    def _begin_pause(self, row: GpuLedger) -> None:
        new = {"session_id": self._waiter.session_id, "requester": self._waiter.requester}
        new_epoch, was_emptied = row.epoch + 1, row.is_emptied
        # The residents may have been resumed since the row was read, in the same epoch.
        is_taken = GpuLedger.objects.filter(is_emptied=was_emptied).move(
            row,
            LedgerState.PAUSING,
            **new,
            epoch=new_epoch,
            priority=self._waiter.priority,
            renews=self._renews,
            is_emptied=True,
            acquired_at=None,
        )
        if not is_taken:  # another process took it first, or the lease was reset
            return
        self._row, self.waits_for = row, f"waiting for {channels.RESIDENT} to leave the GPU"
        row.epoch, row.state, row.session_id, row.requester = (new_epoch, LedgerState.PAUSING, *new.values())
        row.renews, row.is_emptied = self._renews, True
        ttl.extend(self._redis, row.epoch, self._config.ttl_secs)
        self._entry.leave()
        # Before the residents are counted: one that starts later reads here that it may not use the GPU.
        broadcast.publish(self._redis, row, self._config)
        if not was_emptied:
            self._pause = ResidentPause(self._redis, self._listen(), self._config, **new, clock=self._clock)
            self._pause.begin()

    def _recall(self, row: GpuLedger) -> None:
        """Recall the lease for a higher priority, or for an equal one after the longest hold."""
        if row.state != LedgerState.HELD or row.acquired_at is None:
            return
        held_secs = (timezone.now() - row.acquired_at).total_seconds()
        is_turn = row.priority == self._waiter.priority and held_secs >= self._config.max_hold_secs
        if row.priority <= self._waiter.priority and not is_turn:
            return
        for _, message in self._listen().new():
            is_holders = (message.get("service"), message.get("session_id")) == (row.requester, row.session_id)
            if is_holders and message.get("ack_type") == "paused":
                lease.finish(self._redis, row, f"{self._waiter.requester} wanted the GPU")
                return
        if self._clock() - self._recalled_at >= RECALL_SECS:
            self._recalled_at = self._clock()
            timeout_ms = round(self._config.pause_secs * 1000)
            preemption.recall(
                self._redis, session_id=row.session_id, requester=self._waiter.requester, timeout_ms=timeout_ms
            )

    def _listen(self) -> TenantReplies:
        if self._replies is None:
            self._replies = TenantReplies(self._redis)
        return self._replies

    # ---- while the residents leave ----

    def _await_residents(self, row: GpuLedger) -> Verdict | None:
        extended_at = self._clock()
        ttl.extend(self._redis, row.epoch, self._config.ttl_secs)
        if self._pause is not None:
            outcome = self._pause.step()
            if outcome is None:
                is_late = self._clock() >= self._deadline
                return self._refused("the GPU was not free in time") if is_late else None
            if outcome.refusal is not None:
                return self._refused(outcome.refusal)
        acquired_at = timezone.now()
        if not GpuLedger.objects.move(row, LedgerState.HELD, acquired_at=acquired_at):
            return self._refused("the lease was reset meanwhile")
        row.state, row.acquired_at = LedgerState.HELD, acquired_at
        ttl_secs = self._config.ttl_secs if self._renews else self._config.unrenewed_secs
        ttl.extend(self._redis, row.epoch, ttl_secs)
        broadcast.publish(self._redis, row, self._config)
        if self._clock() - extended_at >= self._config.ttl_secs / 2:
            return self._refused("the database did not answer in time")  # the lease may have expired meanwhile
        log.info("lease granted lease=%d requester=%s waited_secs=%.2f", row.epoch, row.requester, self.waited_secs)
        return AcquisitionGranted(row.epoch, self.waited_secs)

    def _refused(self, reason: str) -> AcquisitionRefused:
        return AcquisitionRefused(reason, self.waited_secs)
