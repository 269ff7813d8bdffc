"""The claims of one worker: rows it takes, threads they run in, and the number of further claims it can serve.

Knows neither runners nor token logs; ``ClaimRunner`` computes a claimed row.
"""

import logging
import threading
import time
from uuid import UUID

from django.conf import settings
from django.db import connections

from inference.dispatch.generation_state import ActiveGeneration
from inference.models import Generation, Priority
from inference.models.querysets import GenerationQuerySet
from inference.runtime import log_context
from inference.runtime.database import retry_transaction
from inference.worker.claim_runner import ClaimRunner

log = logging.getLogger(__name__)

IDLE_POLL_SECS = 0.02


class ClaimPool:
    """``run_next`` may be called from any number of threads; once ``closing`` is set no row is claimed."""

    def __init__(self, worker_name: str, runner: ClaimRunner, closing: threading.Event) -> None:
        self._worker_name = worker_name
        self._runner = runner
        self._closing = closing
        # Claimed and not settled. A row that was taken over and claimed again here is in it twice.
        self._unsettled: list[UUID] = []

    @property
    def active(self) -> dict[UUID, ActiveGeneration]:
        """Generations that are being computed, by id."""
        return self._runner.active

    def run_next(self) -> bool:
        """Claim the next generation and run it to its end; False when none waits or the worker stops.

        Batch rows run in threads of their own, so that a Celery thread is free for an interactive row; the engine
        preempts batch sequences for it when there is no slot.
        """
        has_run = False
        # While all slots are taken only an interactive row is worth a claim.
        while row := self._claim(Generation.objects.all() if self._n_free > 0 else Generation.objects.interactive()):
            has_run = True
            if row.priority == Priority.INTERACTIVE:
                self._run(row)
                break
            self._run_in_thread(row)
        self._fill_free_slots()
        return has_run

    def wait_until_idle(self, timeout_secs: float) -> bool:
        """Wait for the active generations; False when some are left after the timeout."""
        deadline = time.monotonic() + timeout_secs
        while self.active and time.monotonic() < deadline:
            time.sleep(IDLE_POLL_SECS)
        return not self.active

    def holds(self, generation_id: UUID, epoch: int) -> bool:
        """Return whether this claim is being computed here."""
        live = self.active.get(generation_id)
        return live is not None and live.epoch == epoch

    def n_claimable(self) -> int:
        """Return the number of wake-up messages that could lead to a claim now.

        A batch row takes no slot from an interactive one.
        """
        if self._n_free > 0 or not Generation.objects.interactive().queued().exists():
            return self._n_free
        n_interactive = sum(live.priority == Priority.INTERACTIVE for live in list(self.active.values()))
        return settings.GEMMA_PARALLEL - n_interactive

    @property
    def _n_free(self) -> int:
        return settings.GEMMA_PARALLEL - len(self._unsettled)

    def _claim(self, rows: GenerationQuerySet) -> Generation | None:
        if self._closing.is_set():
            return None
        row = retry_transaction(lambda: rows.claim_next(worker=self._worker_name))
        if row is not None:
            self._unsettled.append(row.pk)
        return row

    def _fill_free_slots(self) -> None:
        """Start batch rows whose wake-up message arrived while there was no free slot."""
        while self._n_free > 0 and (row := self._claim(Generation.objects.batch())):
            self._run_in_thread(row)

    def _run_in_thread(self, row: Generation) -> None:
        def run_and_refill() -> None:
            try:
                self._run(row)
                self._fill_free_slots()
            finally:
                connections.close_all()  # Celery closes those of its own threads only

        threading.Thread(target=run_and_refill, name=f"batch {row.pk}", daemon=True).start()

    def _run(self, row: Generation) -> None:
        # A first claim is recorded in the row; operators look for one that continues earlier work.
        level = logging.DEBUG if row.claim_epoch == 1 else logging.INFO
        with log_context.bound_to(row):
            log.log(level, "claimed generation=%s attempt=%d epoch=%d", row.pk, row.attempt, row.claim_epoch)
            try:
                self._runner.run(row)
            finally:
                self._unsettled.remove(row.pk)
