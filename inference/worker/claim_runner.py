"""Running one claimed generation to its end on this worker: resume, compute, finish.

The row is written first and its log's End second, both under the claim's epoch; a claim that is lost writes nothing.
"""

import logging
import threading
import time
from typing import Any
from uuid import UUID

import redis

from inference.config.tokenizer import known_vocabulary
from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, Outcome
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.queue.deadlines import Deadlines
from inference.queue.notify import notify
from inference.queue.results import CANCELLED, TIMED_OUT, end_entry, row_columns
from inference.queue.termination import LOG_PATIENCE_SECS
from inference.runtime.database import repeat_until_done
from inference.token_stream import redis_log
from inference.token_stream.entries import TokenEntry
from inference.token_stream.writer import LogWriter

log = logging.getLogger(__name__)

RETRY_SECS = 0.5
# While the database is away the heartbeat stands still too: after this time the row is another worker's affair.
DATABASE_PATIENCE_SECS = 120.0
FLUSH_SECS = 2.0
STAGES = ("queue", "gpu_wait", "load", "restore", "prefill", "first_token", "decode")
NEWEST_RUN_WEIGHT = 0.2


class ClaimRunner:
    """``run`` blocks its thread until the claim is settled; any number of threads may be in it."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        writer: LogWriter,
        client: "redis.Redis[bytes]",
        stopping: threading.Event,
        deadlines: Deadlines,
    ) -> None:
        self.lives: dict[UUID, ActiveGeneration] = {}
        self.mean_run_secs: float | None = None
        self._dispatcher = dispatcher
        self._writer = writer
        self._client = client
        self._stopping = stopping
        self._deadlines = deadlines

    def run(self, row: Generation) -> None:
        """Compute ``row``, which this worker has just claimed, and settle its claim."""
        live = ActiveGeneration.of(row, deadline=self._deadlines.of((row.pk, row.deadline_at, row.timeout_secs)))
        self.lives[row.pk] = live
        started = time.monotonic()
        try:
            outcome = self._compute(row, live)
            self._settle(row, live, outcome)
        except BaseException:
            # The heartbeat stops with the entry below, so that the sweep gives the row to another attempt.
            self._dispatcher.drop(row.pk, row.claim_epoch)
            # What is not in the log yet would be computed again.
            self._writer.flush(row.pk, row.claim_epoch, FLUSH_SECS)
            self._writer.forget(row.pk, row.claim_epoch)
            raise
        finally:
            # This worker may have claimed the row again already, after somebody took it from this claim.
            if self.lives.get(row.pk) is live:
                del self.lives[row.pk]
        if outcome.claim is ClaimState.ENDED:
            self._measure(time.monotonic() - started)

    def _measure(self, run_secs: float) -> None:
        mean = self.mean_run_secs
        self.mean_run_secs = run_secs if mean is None else mean + NEWEST_RUN_WEIGHT * (run_secs - mean)

    # ---- computing ----

    def _compute(self, row: Generation, live: ActiveGeneration) -> Outcome:
        tokens = self._resume(row, live)
        if isinstance(tokens, Outcome):
            return tokens
        live.tokens = tokens
        self._writer.open(row.pk, row.claim_epoch, tokens)
        if row.cancel_requested:
            return Outcome(ClaimState.ENDED, CANCELLED)
        self._dispatcher.add(live)
        outcome = live.wait()
        if outcome is None:
            raise RuntimeError(f"generation {row.pk} was let go without an outcome")
        return outcome

    def _resume(self, row: Generation, live: ActiveGeneration) -> list[TokenEntry] | Outcome:
        """The tokens that former claims gave out, or how it ends when nobody can say what they were.

        Without them nothing is computed: readers may have seen tokens that another run would not repeat.
        """
        if row.claim_epoch == 1:
            return []
        unwanted_at: float | None = None
        while True:
            try:
                return redis_log.fence(self._client, row.pk, row.claim_epoch)
            except StoreUnavailable as error:
                log.warning("generation %s waits for its token log: %s", row.pk, error)
            held = Generation.objects.held(generation_id=row.pk, epoch=row.claim_epoch)
            cancelled = held.values_list("cancel_requested", flat=True).first()
            if cancelled is None:
                return Outcome(ClaimState.LOST)
            now = time.monotonic()
            if cancelled or (live.deadline is not None and now >= live.deadline):
                # It is to end: with what readers were told, if that can be read within a time.
                unwanted_at = unwanted_at or now
                if now - unwanted_at >= LOG_PATIENCE_SECS:
                    return Outcome(ClaimState.ENDED, CANCELLED if cancelled else TIMED_OUT)
            if self._stopping.wait(RETRY_SECS):
                return Outcome(ClaimState.RELEASED)

    # ---- settling ----

    def _settle(self, row: Generation, live: ActiveGeneration, outcome: Outcome) -> None:
        match outcome.claim:
            case ClaimState.ENDED:
                self._finish(row, live, outcome)
            case ClaimState.RELEASED:
                self._give_back(row)
            case ClaimState.LOST:
                log.warning("generation %s: the claim with epoch %d is lost", row.pk, row.claim_epoch)
                self._writer.forget(row.pk, row.claim_epoch)

    def _finish(self, row: Generation, live: ActiveGeneration, outcome: Outcome) -> None:
        if outcome.ending is None:
            raise RuntimeError(f"generation {row.pk} ended without an ending")
        columns = row_columns(
            outcome.ending, live.tokens, live.params, vocabulary=known_vocabulary(), last=outcome.final_text
        )
        ready = self._dispatcher.ready
        own: dict[str, Any] = {
            "n_cached_tokens": outcome.n_cached,
            "model_name": ready.model_name if ready else "",
            "timings": dict.fromkeys(STAGES, 0.0) | row.timings | _rounded(outcome.timings),
        }
        finish = Generation.objects.finish
        if repeat_until_done(
            lambda: finish(generation_id=row.pk, epoch=row.claim_epoch, columns=columns | own),
            patience_secs=DATABASE_PATIENCE_SECS,
        ):
            self._writer.put([(row.pk, row.claim_epoch, end_entry(columns, live.tokens))])
            if row.follow_up_task:
                notify(row.pk, row.follow_up_task)
        else:
            log.warning("generation %s: the claim with epoch %d was lost before its end", row.pk, row.claim_epoch)
            self._writer.forget(row.pk, row.claim_epoch)

    def _give_back(self, row: Generation) -> None:
        """To the queue, with everything said so far in its log, for the next worker to go on."""
        self._writer.flush(row.pk, row.claim_epoch, FLUSH_SECS)
        give_back = Generation.objects.give_back
        repeat_until_done(
            lambda: give_back(generation_id=row.pk, epoch=row.claim_epoch, counts_as_attempt=False),
            patience_secs=FLUSH_SECS,
        )
        self._writer.forget(row.pk, row.claim_epoch)


def _rounded(timings: dict[str, float]) -> dict[str, float]:
    return {stage: round(ms, 1) for stage, ms in timings.items()}
