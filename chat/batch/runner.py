"""The batch itself: keeps some prompts with the service, collects what has ended, until none is left.

One thread, one unit of work at a time. What the service already has of a killed run is found again by its keys.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from django.db import close_old_connections, connection

from chat.access.callers import Caller
from chat.batch.errors import BatchError, ServiceGone
from chat.batch.inputs import BatchInput, BatchPrompt, LineFailure
from chat.batch.outputs import BatchOutput
from chat.error_translation import translated
from chat.errors import ChatError, Conflict, NotFound
from chat.schemas import answers
from chat.services import turns
from chat.services.turns import Turn
from inference.models import ENDED, Generation, Status
from inference.monitoring import worker_report

logger = logging.getLogger(__name__)

# Refusals that end by themselves: somebody else's work is in the way, or a server is being restarted.
PASSING = {"queue_full", "caller_limit", "store_unavailable"}
LONGEST_WAIT_SECS = 5.0
SHORTEST_POLL_SECS = 0.01
LONGEST_POLL_SECS = 0.25
HEALTH_SECS = 2.0
CANCEL_SECS = 3.0
PREPARING_THREADS = 8
DELETED = "deleted"


class ProgressListener(Protocol):
    """Who is told what happens."""

    def answered(self, n_tokens: int) -> None: ...

    def failed(self, failure: LineFailure) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class PendingPrompt:
    """A prompt that the service has. ``is_new``: asked by this process, not found from a former one."""

    prompt: BatchPrompt
    generation_id: uuid.UUID
    attempt: int
    is_new: bool


class Batch:
    """One run over the lines that have no answer yet."""

    def __init__(
        self,
        *,
        caller: Caller,
        source: BatchInput,
        output: BatchOutput,
        run: str,
        concurrency: int,
        patience_secs: float,
    ) -> None:
        self.caller = caller
        self.source = source
        self.output = output
        self.run_name = run
        self.concurrency = concurrency
        self.patience_secs = patience_secs
        self.flights: dict[uuid.UUID, PendingPrompt] = {}
        self.stopping = threading.Event()
        self.n_failed = 0
        self._todo = self._remaining()
        self._held: BatchPrompt | None = None  # refused for now; it is next
        self._not_before = 0.0
        self._poll_secs = SHORTEST_POLL_SECS
        self._heard_at = time.monotonic()
        self._next_health = 0.0
        self._threads = ThreadPoolExecutor(min(concurrency, PREPARING_THREADS), thread_name_prefix="prepare")

    def run(self, watcher: ProgressListener) -> None:
        """Until every line was tried or ``stopping`` is set. Raises BatchError; answers so far are kept."""
        self.watcher = watcher
        try:
            while not self.stopping.is_set() and self.do_one_unit():
                self.stopping.wait(self._poll_secs)
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def do_one_unit(self) -> bool:
        """Ask as many prompts as there is room for, take in what has ended; False when nothing is left."""
        more = self._fill()
        n_ended = self._collect()
        self._poll_secs = SHORTEST_POLL_SECS if n_ended else min(self._poll_secs * 1.5, LONGEST_POLL_SECS)
        self._check_service()
        return more or bool(self.flights)

    def cancel(self) -> None:
        """Stop what the service has of this run; what ends well meanwhile is kept."""
        for flight in self.flights.values():
            try:
                turns.cancel(caller=self.caller, generation_id=flight.generation_id)
            except ChatError as error:
                # It has ended meanwhile, or nobody can be told: the next start finds it again either way.
                logger.debug("generation %s is not cancelled: %s", flight.generation_id, error)
        deadline = time.monotonic() + CANCEL_SECS
        while self.flights and time.monotonic() < deadline:
            for row in self._ended_rows():
                flight = self.flights.pop(row.pk)
                if row.status == Status.COMPLETE:
                    self._keep(flight.prompt, row)
            time.sleep(SHORTEST_POLL_SECS)

    # ---- asking ----

    def _remaining(self) -> Iterator[BatchPrompt | LineFailure]:
        return (self.source.parse(raw) for raw in self.source.lines() if raw.number not in self.output.done)

    def _fill(self) -> bool:
        """Whether there is more to ask."""
        while len(self.flights) < self.concurrency:
            if time.monotonic() < self._not_before or self.stopping.is_set():
                return True
            item = self._held or next(self._todo, None)
            self._held = None
            if item is None:
                return False
            if isinstance(item, LineFailure):
                self._fail(item)
            else:
                self._ask(item)
        return True

    def _ask(self, prompt: BatchPrompt, attempt: int = 0) -> None:
        try:
            flight = self._begun(prompt, attempt)
        except ChatError as error:
            if error.code in PASSING:
                self._hold(prompt, error)
            elif error.status >= 500:
                raise BatchError(f"the service cannot take prompts: {error.message}") from error
            else:
                self._fail(LineFailure(prompt.line, prompt.prompt_id, error.code, error.message))
            return
        self.flights[flight.generation_id] = flight

    def _begun(self, prompt: BatchPrompt, attempt: int) -> PendingPrompt:
        """The prompt's generation: one that a former process asked for, unless it ended badly, else a new one."""
        while True:
            # With the digest: a line that failed may have been corrected since.
            key = f"batch:{self.run_name}:{prompt.line}:{prompt.digest}:{attempt}"
            turn = turns.start_turn(
                caller=self.caller, request=prompt.request, idempotency_key=key, request_digest=prompt.digest
            )
            if turn.replayed and self._ended_badly(turn.generation_id):
                attempt += 1
                continue
            self._prepare(turn)
            return PendingPrompt(prompt, turn.generation_id, attempt, is_new=not turn.replayed)

    def _ended_badly(self, generation_id: uuid.UUID) -> bool:
        with translated():
            bad = [status for status in ENDED if status != Status.COMPLETE]
            return Generation.objects.filter(pk=generation_id, status__in=bad).exists()

    def _prepare(self, turn: Turn) -> None:
        # Memories take a second or three; in this thread they would hold up all other prompts.
        if turn.needs_preparation:
            self._threads.submit(_prepare_turn, turn.generation_id)

    def _hold(self, prompt: BatchPrompt, error: ChatError) -> None:
        self._held = prompt
        self._not_before = time.monotonic() + min(error.retry_after_secs or 1, LONGEST_WAIT_SECS)
        if error.code == "store_unavailable":
            close_old_connections()

    # ---- taking in ----

    def _collect(self) -> int:
        """How many prompts ended."""
        try:
            rows = self._ended_rows()
            gone = self.flights.keys() - self._known_ids()
        except ChatError:
            close_old_connections()  # the database is away; the health check counts for how long
            return 0
        for row in rows:
            self._take_in(self.flights.pop(row.pk), row)
        for generation_id in gone:
            # Deleted by the sweep while this process was suspended, or by an operator.
            self._again(self.flights.pop(generation_id), DELETED, "it was deleted before it was read")
        if rows or gone:
            self._not_before = 0.0  # there is room now, whatever was said before
        return len(rows) + len(gone)

    def _known_ids(self) -> set[uuid.UUID]:
        with translated():
            return set(Generation.objects.filter(pk__in=self.flights.keys()).values_list("pk", flat=True))

    def _ended_rows(self) -> list[Generation]:
        with translated():
            ended = Generation.objects.filter(pk__in=self.flights.keys(), status__in=ENDED)
            pks = list(ended.values_list("pk", flat=True))
        rows = []
        for pk in pks:
            try:
                rows.append(turns.get_generation(caller=self.caller, generation_id=pk))
            except NotFound:
                continue  # gone since: found missing the next time
        return rows

    def _take_in(self, flight: PendingPrompt, row: Generation) -> None:
        if row.status == Status.COMPLETE:
            self._keep(flight.prompt, row)
        else:
            code = row.error_code or row.finish_reason or str(row.status)
            self._again(flight, code, row.error_message or f"the answer was {row.status}")

    def _keep(self, prompt: BatchPrompt, row: Generation) -> None:
        body = answers.answer(row)
        self.output.append({"line": prompt.line, "id": prompt.prompt_id, **body, "digest": prompt.digest})
        self.watcher.answered(row.n_completion_tokens)

    def _again(self, flight: PendingPrompt, code: str, message: str) -> None:
        """Work of a killed run may have been cut with it: that is no verdict on the prompt, so it is asked anew."""
        was_lost = code == DELETED and flight.attempt == 0
        if flight.is_new and not was_lost:
            self._fail(LineFailure(flight.prompt.line, flight.prompt.prompt_id, code, message))
        else:
            self._ask(flight.prompt, flight.attempt + 1)

    def _fail(self, failure: LineFailure) -> None:
        self.n_failed += 1
        self.output.append_failure(failure)
        self.watcher.failed(failure)

    # ---- the service ----

    def _check_service(self) -> None:
        """Raises ServiceGone when no worker has reported for the whole patience."""
        now = time.monotonic()
        if now < self._next_health:
            return
        self._next_health = now + HEALTH_SECS
        if worker_report.last_report() is not None:
            self._heard_at = now
            return
        silent_secs = now - self._heard_at
        if silent_secs > self.patience_secs:
            raise ServiceGone(f"no worker has reported for {silent_secs:.0f} s. Start again to go on.")
        if silent_secs > HEALTH_SECS:
            self.watcher.say(f"no worker reports; waiting up to {self.patience_secs:g} s for one")


def cancel_run(run: str, caller: Caller) -> int:
    """Stop what the service still has of a run that was given up; how many prompts that were."""
    rows = Generation.objects.filter(owner=caller.key, idempotency_key__startswith=f"batch:{run}:")
    count = 0
    for generation_id in list(rows.exclude(status__in=ENDED).values_list("pk", flat=True)):
        try:
            turns.cancel(caller=caller, generation_id=generation_id)
            count += 1
        except (Conflict, NotFound):
            continue  # it has just ended
    return count


def _prepare_turn(generation_id: uuid.UUID) -> None:
    try:
        turns.prepare_turn(generation_id=generation_id)
    except ChatError as error:
        # Its row says why if it failed; if not, the sweep prepares it later.
        logger.warning("generation %s: not prepared: %s", generation_id, error)
    finally:
        connection.close()
