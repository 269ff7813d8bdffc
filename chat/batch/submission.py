"""Submits the prompts of a batch to the service under idempotency keys, so that a restarted run finds its work."""

import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import connection

from chat.access.callers import Caller
from chat.batch.inputs import BatchPrompt
from chat.error_translation import translated
from chat.errors import ChatError, Conflict, NotFound
from chat.services import turns
from inference.models import ENDED, Generation, Status

log = logging.getLogger(__name__)

MAX_PREPARING_THREADS = 8
FAILED = [status for status in ENDED if status != Status.COMPLETE]


@dataclass(frozen=True)
class PendingPrompt:
    """A prompt in the service; ``is_new``: submitted by this process, not found from a previous one."""

    prompt: BatchPrompt
    generation_id: uuid.UUID
    attempt: int
    is_new: bool


class Submitter:
    """Starts the turns of one run."""

    def __init__(self, *, caller: Caller, run: str, concurrency: int) -> None:
        self.caller = caller
        self.run = run
        n_threads = min(concurrency, MAX_PREPARING_THREADS)
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="prepare")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def submit(self, prompt: BatchPrompt, attempt: int = 0) -> PendingPrompt:
        """Find the prompt's generation of a previous process, unless it failed, else start one. Raises ChatError."""
        while True:
            # The digest is part of the key: a failed line may have been corrected since.
            key = f"batch:{self.run}:{prompt.line}:{prompt.digest}:{attempt}"
            turn = turns.start_turn(
                caller=self.caller, request=prompt.request, idempotency_key=key, request_digest=prompt.digest
            )
            with translated():
                failed = Generation.objects.filter(pk=turn.generation_id, status__in=FAILED)
                has_failed = turn.replayed and failed.exists()
            if has_failed:
                attempt += 1
                continue
            # Retrieval takes seconds; on this thread it would delay all other prompts.
            if turn.needs_preparation:
                self._threads.submit(_prepare_turn, turn.generation_id)
            return PendingPrompt(prompt, turn.generation_id, attempt, is_new=not turn.replayed)


def cancel_run(run: str, caller: Caller) -> int:
    """Cancel the unfinished prompts of an abandoned run and return their number."""
    rows = Generation.objects.filter(owner=caller.key, idempotency_key__startswith=f"batch:{run}:")
    count = 0
    for generation_id in list(rows.exclude(status__in=ENDED).values_list("pk", flat=True)):
        try:
            turns.cancel(caller=caller, generation_id=generation_id)
            count += 1
        except (Conflict, NotFound):
            continue  # it has ended meanwhile
    return count


def _prepare_turn(generation_id: uuid.UUID) -> None:
    try:
        turns.prepare_turn(generation_id=generation_id)
    except ChatError as error:
        # The row of a failed turn names the error; of another one the reaper repeats the preparation.
        log.warning("turn not prepared generation=%s error=%s", generation_id, error)
    finally:
        connection.close()
