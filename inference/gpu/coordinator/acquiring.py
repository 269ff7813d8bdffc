"""One request for the card, from the line to the grant, in short steps that whoever waits for it repeats.

Knows the ledger, the line and the residents; neither HTTP nor threads.
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

ASK_HOLDER_SECS = 1.0
# How long whoever waits pauses between two steps: little while the card is being emptied for it; in the line the longer
# it has waited already, so that many who wait cost no more than a few.
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
    """``step`` until it does not return None, or ``cancel``, from any threads. One of the two has to come to an end."""

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
        self._place = QueueEntry.new(client, waiter)
        self._watch = lease.LeaseWatcher(config, clock=clock)
        self._answers: TenantReplies | None = None
        self._pause: ResidentPause | None = None
        self._taken: GpuLedger | None = None  # as we left it when our turn came
        self._asked_holder_at = float("-inf")
        self.waits_for = ""  # for users
        self._is_cancelled = False
        self._lock = threading.Lock()

    @property
    def waited_secs(self) -> float:
        return self._clock() - self._began

    @property
    def pause_secs(self) -> float:
        """When to take the next step."""
        if self._taken is not None:
            return EMPTYING_STEP_SECS
        return min(MAX_STEP_SECS, max(MIN_STEP_SECS, self.waited_secs / 10))

    def step(self) -> Verdict | None:
        """Go on; None: not now. What fails on the way ends in a refusal: nobody is granted a card in doubt."""
        with self._lock:
            return self._refused("nobody waits for it any more") if self._is_cancelled else self._step()

    def cancel(self) -> None:
        """Nobody waits for this any more, nor for what it has just been granted."""
        with self._lock:
            self._is_cancelled = True
            self._leave(gives_back=True)

    def _step(self) -> Verdict | None:
        try:
            verdict = self._wait() if self._taken is None else self._empty(self._taken)
        except (redis.RedisError, DatabaseError) as error:
            log.warning("a request of %s for the GPU failed: %s", self._waiter.requester, error)
            verdict = self._refused("the coordinator cannot reach Redis or its database")
        if verdict is not None:
            self._leave(gives_back=isinstance(verdict, AcquisitionRefused))
        return verdict

    def _leave(self, *, gives_back: bool) -> None:
        # What cannot be undone now ends by itself: the place within seconds, a half-made lease with its tenure.
        with suppress(redis.RedisError, DatabaseError):
            self._place.leave()
        with suppress(redis.RedisError, DatabaseError):
            if self._answers is not None:
                self._answers.close()
        with suppress(redis.RedisError, DatabaseError):
            if gives_back and self._taken is not None:
                lease.finish(self._redis, self._taken, "its request came to nothing")

    # ---- in the line ----

    def _wait(self) -> Verdict | None:
        row = GpuLedger.objects.current()
        if row.state == LedgerState.HELD and row.session_id == self._waiter.session_id:
            return AcquisitionGranted(
                row.epoch, self.waited_secs
            )  # asked again by somebody who did not hear the answer
        self.waits_for = f"{row.requester} holds the GPU" if row.requester else ""
        if self._clock() >= self._deadline:
            return self._refused(self.waits_for or "another program holds the GPU")
        self._place.keep()
        if row.state != LedgerState.FREE:
            self._watch.look(self._redis, row)
            self._ask_for_leave(row)
        elif self._place.is_first():
            self._take(row)
        return None

    def _take(self, row: GpuLedger) -> None:
        new = {"session_id": self._waiter.session_id, "requester": self._waiter.requester}
        new_epoch, was_emptied = row.epoch + 1, row.is_emptied
        taken = GpuLedger.objects.move(
            row,
            LedgerState.PAUSING,
            **new,
            epoch=new_epoch,
            priority=self._waiter.priority,
            renews=self._renews,
            is_emptied=True,
            acquired_at=None,
        )
        if not taken:  # another process was faster, or the lease was reset
            return
        self._taken, self.waits_for = row, f"waiting for {channels.RESIDENT} to leave the GPU"
        row.epoch, row.state, row.session_id, row.requester = (new_epoch, LedgerState.PAUSING, *new.values())
        ttl.extend(self._redis, row.epoch, self._config.ttl_secs)
        self._place.leave()
        # Before the residents are counted: who comes later reads here that the card is not theirs.
        broadcast.show(self._redis, row)
        if not was_emptied:
            self._pause = ResidentPause(self._redis, self._listening(), self._config, **new, clock=self._clock)
            self._pause.begin()

    def _ask_for_leave(self, row: GpuLedger) -> None:
        """Tell the holder when this one has more right to the card: higher priority, or equal and it is our turn."""
        if row.state != LedgerState.HELD or row.acquired_at is None:
            return
        held_secs = (timezone.now() - row.acquired_at).total_seconds()
        is_turn = row.priority == self._waiter.priority and held_secs >= self._config.max_hold_secs
        if row.priority <= self._waiter.priority and not is_turn:
            return
        for _, message in self._listening().new():
            is_holders = (message.get("service"), message.get("session_id")) == (row.requester, row.session_id)
            if is_holders and message.get("ack_type") == "paused":
                lease.finish(self._redis, row, f"{self._waiter.requester} wanted the card")
                return
        if self._clock() - self._asked_holder_at >= ASK_HOLDER_SECS:
            self._asked_holder_at = self._clock()
            timeout_ms = round(self._config.pause_secs * 1000)
            preemption.ask_holder(
                self._redis, session_id=row.session_id, requester=self._waiter.requester, timeout_ms=timeout_ms
            )

    def _listening(self) -> TenantReplies:
        if self._answers is None:
            self._answers = TenantReplies(self._redis)
        return self._answers

    # ---- with the turn ----

    def _empty(self, row: GpuLedger) -> Verdict | None:
        ttl.extend(self._redis, row.epoch, self._config.ttl_secs)
        if self._pause is not None:
            outcome = self._pause.step()
            if outcome is None:
                is_late = self._clock() >= self._deadline
                return self._refused("the card was not free in time") if is_late else None
            if outcome.refusal is not None:
                return self._refused(outcome.refusal)
        if not GpuLedger.objects.move(row, LedgerState.HELD, acquired_at=timezone.now()):
            return self._refused("the lease was reset meanwhile")
        row.state = LedgerState.HELD
        ttl_secs = self._config.ttl_secs if self._renews else self._config.unrenewed_secs
        ttl.extend(self._redis, row.epoch, ttl_secs)
        broadcast.show(self._redis, row)
        log.info("the GPU lease %d goes to %s after %.2f s", row.epoch, row.requester, self.waited_secs)
        return AcquisitionGranted(row.epoch, self.waited_secs)

    def _refused(self, reason: str) -> AcquisitionRefused:
        return AcquisitionRefused(reason, self.waited_secs)
