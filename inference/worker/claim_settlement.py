"""The end of a claim: its result in the row, or the row back in the queue, or nothing when the claim was lost.

The row is written first and the End entry of its log second, both under the claim's epoch.
"""

import logging
from typing import Any

from django.db import transaction

from inference.config.tokenizer import known_vocabulary
from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, GenerationOutcome
from inference.models import Generation
from inference.queue import usage
from inference.queue.notify import notify
from inference.queue.results import end_entry, row_columns
from inference.runtime.database import repeat_until_done
from inference.token_stream.writer import LogWriter

log = logging.getLogger(__name__)

# Without a database no heartbeat is written either: after this time another worker may have taken the row over.
DATABASE_PATIENCE_SECS = 120.0
FLUSH_SECS = 2.0
STAGES = ("queue", "gpu_wait", "load", "restore", "prefill", "first_token", "decode")


def _finish(row: Generation, columns: dict[str, Any]) -> bool:
    """Running -> ended, with the owner's usage; False when the claim is lost."""
    with transaction.atomic():
        is_done = Generation.objects.finish(generation_id=row.pk, epoch=row.claim_epoch, columns=columns)
        if is_done:
            usage.record_day(
                owner=row.owner,
                n_prompt_tokens=row.n_prompt_tokens,
                n_completion_tokens=columns["n_completion_tokens"],
            )
    return is_done


class ClaimSettlement:
    def __init__(self, dispatcher: Dispatcher, writer: LogWriter) -> None:
        self._dispatcher = dispatcher
        self._writer = writer

    def settle(self, row: Generation, live: ActiveGeneration, outcome: GenerationOutcome) -> None:
        match outcome.claim:
            case ClaimState.ENDED:
                self._store_result(row, live, outcome)
            case ClaimState.RELEASED:
                self._release(row)
            case ClaimState.LOST:
                self._forget_lost(row)

    def _store_result(self, row: Generation, live: ActiveGeneration, outcome: GenerationOutcome) -> None:
        if outcome.ending is None:
            raise RuntimeError(f"The outcome of generation {row.pk} is {outcome.claim} and has no ending.")
        columns = row_columns(
            outcome.ending, live.tokens, live.params, vocabulary=known_vocabulary(), last=outcome.final_text
        )
        ready = self._dispatcher.ready
        measured: dict[str, Any] = {
            "n_cached_tokens": outcome.n_cached,
            "model_name": ready.model_name if ready else "",
            "timings": dict.fromkeys(STAGES, 0.0)
            | row.timings
            | {stage: round(ms, 1) for stage, ms in outcome.timings.items()},
        }
        if not repeat_until_done(
            lambda: _finish(row, columns | measured),
            patience_secs=DATABASE_PATIENCE_SECS,
        ):
            self._forget_lost(row)
            return
        usage.record_minute(owner=row.owner, n_tokens=row.n_prompt_tokens + len(live.tokens))
        self._writer.put([(row.pk, row.claim_epoch, end_entry(columns, live.tokens))])
        if row.follow_up_task:
            notify(row.pk, row.follow_up_task)

    def _release(self, row: Generation) -> None:
        """Return the row to the queue; all tokens emitted so far are in its log for the next worker."""
        self._writer.flush(row.pk, row.claim_epoch, FLUSH_SECS)
        release_claim = Generation.objects.release_claim
        repeat_until_done(
            lambda: release_claim(generation_id=row.pk, epoch=row.claim_epoch, counts_as_attempt=False),
            patience_secs=FLUSH_SECS,
        )
        self._writer.forget(row.pk, row.claim_epoch)

    def _forget_lost(self, row: Generation) -> None:
        log.warning("claim lost, nothing is written generation=%s epoch=%d", row.pk, row.claim_epoch)
        self._writer.forget(row.pk, row.claim_epoch)
