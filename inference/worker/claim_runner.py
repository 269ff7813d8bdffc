"""Running one claimed generation: resume from its token log, compute, settle the claim."""

import logging
import threading
import time
from uuid import UUID

import redis

from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, GenerationOutcome
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.queue.deadlines import Deadlines
from inference.queue.results import CANCELLED, TIMED_OUT
from inference.queue.termination import LOG_PATIENCE_SECS
from inference.token_stream import redis_log
from inference.token_stream.entries import TokenEntry
from inference.token_stream.writer import LogWriter
from inference.worker.claim_settlement import FLUSH_SECS, ClaimSettlement

log = logging.getLogger(__name__)

RETRY_SECS = 0.5
NEWEST_RUN_WEIGHT = 0.2


class ClaimRunner:
    """``run`` blocks its thread until the claim is settled; any number of threads may be in it."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        writer: LogWriter,
        client: "redis.Redis[bytes]",
        closing: threading.Event,
        deadlines: Deadlines,
    ) -> None:
        self.active: dict[UUID, ActiveGeneration] = {}
        self.mean_run_secs: float | None = None
        self._dispatcher = dispatcher
        self._writer = writer
        self._client = client
        self._closing = closing
        self._deadlines = deadlines
        self._settlement = ClaimSettlement(dispatcher, writer)

    def run(self, row: Generation) -> None:
        """Compute ``row``, which this worker has just claimed, and settle its claim."""
        live = ActiveGeneration.of(row, deadline=self._deadlines.of((row.pk, row.deadline_at, row.timeout_secs)))
        self.active[row.pk] = live
        started = time.monotonic()
        try:
            outcome = self._compute(row, live)
            self._settlement.settle(row, live, outcome)
        except BaseException:
            # Without the entry below the heartbeat stops, and the reaper gives the row to another attempt.
            self._dispatcher.drop(row.pk, row.claim_epoch)
            # The next attempt continues after the last token in the log.
            self._writer.flush(row.pk, row.claim_epoch, FLUSH_SECS)
            self._writer.forget(row.pk, row.claim_epoch)
            raise
        finally:
            # After a take-over the row may have been claimed here again: then the entry belongs to the later claim.
            if self.active.get(row.pk) is live:
                del self.active[row.pk]
        if outcome.claim is ClaimState.ENDED:
            run_secs, mean = time.monotonic() - started, self.mean_run_secs
            self.mean_run_secs = run_secs if mean is None else mean + NEWEST_RUN_WEIGHT * (run_secs - mean)

    def _compute(self, row: Generation, live: ActiveGeneration) -> GenerationOutcome:
        resumed = self._resume(row, live)
        if isinstance(resumed, GenerationOutcome):
            return resumed
        live.tokens = resumed
        self._writer.open(row.pk, row.claim_epoch, resumed)
        if row.cancel_requested:
            return GenerationOutcome(ClaimState.ENDED, CANCELLED)
        self._dispatcher.add(live)
        outcome = live.wait()
        if outcome is None:
            raise RuntimeError(f"The computation of generation {row.pk} ended without an outcome.")
        return outcome

    def _resume(self, row: Generation, live: ActiveGeneration) -> list[TokenEntry] | GenerationOutcome:
        """The tokens that earlier claims emitted, or the outcome when they cannot be read.

        Nothing is computed without them: readers may have received tokens that another run would not repeat.
        """
        if row.claim_epoch == 1:
            return []
        unwanted_since: float | None = None
        while True:
            try:
                return redis_log.fence(self._client, row.pk, row.claim_epoch)
            except StoreUnavailable as error:
                log.warning("waiting for the token log generation=%s error=%s", row.pk, error)
            claim = Generation.objects.with_claim(generation_id=row.pk, epoch=row.claim_epoch)
            cancelled = claim.values_list("cancel_requested", flat=True).first()
            if cancelled is None:
                return GenerationOutcome(ClaimState.LOST)
            now = time.monotonic()
            if cancelled or (live.deadline is not None and now >= live.deadline):
                # The row has to end, with the tokens that readers have if they can be read in time.
                unwanted_since = unwanted_since or now
                if now - unwanted_since >= LOG_PATIENCE_SECS:
                    return GenerationOutcome(ClaimState.ENDED, CANCELLED if cancelled else TIMED_OUT)
            if self._closing.wait(RETRY_SECS):
                return GenerationOutcome(ClaimState.RELEASED)
