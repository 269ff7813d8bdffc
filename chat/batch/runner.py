"""The loop of a batch: keeps a number of prompts in the service and collects their results.

One thread, one unit of work at a time.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Protocol

from django.db import close_old_connections

from chat.access.callers import Caller
from chat.batch.errors import BatchError
from chat.batch.inputs import BatchInput, BatchPrompt, LineFailure
from chat.batch.outputs import BatchOutput
from chat.batch.service_monitor import ServiceMonitor
from chat.batch.stream_output import StreamOutput
from chat.batch.submission import PendingPrompt, Submitter
from chat.error_translation import translated
from chat.errors import ChatError, NotFound
from chat.schemas import answers
from chat.services import turns
from inference.models import ENDED, Generation, Status

log = logging.getLogger(__name__)

# Refusals that pass: other work fills the queue, or a server restarts.
TRANSIENT = {"queue_full", "caller_limit", "store_unavailable"}
MAX_WAIT_SECS = 5.0
MIN_POLL_SECS = 0.01
MAX_POLL_SECS = 0.25
CANCEL_SECS = 3.0
DELETED = "deleted"
MAX_UNKNOWN_FIELDS = 20


class ProgressListener(Protocol):
    """Receives the events of a batch."""

    def answered(self, n_tokens: int) -> None: ...

    def failed(self, failure: LineFailure) -> None: ...

    def notice(self, text: str) -> None: ...


class Batch:
    """A run over the lines without an answer."""

    def __init__(
        self,
        *,
        caller: Caller,
        source: BatchInput,
        output: BatchOutput | StreamOutput,
        run: str,
        concurrency: int,
        patience_secs: float,
    ) -> None:
        self.caller = caller
        self.source = source
        self.output = output
        self.run_name = run
        self.concurrency = concurrency
        self.pending: dict[uuid.UUID, PendingPrompt] = {}
        self.stopping = threading.Event()
        self.n_failed = 0
        self.monitor = ServiceMonitor(patience_secs)
        self._submitter = Submitter(caller=caller, run=run, concurrency=concurrency)
        unanswered = (line for line in source.lines() if line.number not in output.done)
        self._remaining: Iterator[BatchPrompt | LineFailure] = map(source.parse, unanswered)
        self._deferred: BatchPrompt | None = None  # refused for now; the next to submit
        self._not_before = 0.0
        self._poll_secs = MIN_POLL_SECS
        self._unknown_fields: set[str] = set()

    def run(self, listener: ProgressListener) -> None:
        """Run until every line was tried or ``stopping`` is set. Raises BatchError; results so far are kept."""
        self.listener = listener
        try:
            while not self.stopping.is_set() and self.do_one_unit():
                self.stopping.wait(self._poll_secs)
        finally:
            self._submitter.close()

    def do_one_unit(self) -> bool:
        """Submit prompts up to the concurrency and collect ended ones; return False when nothing is left."""
        more = self._submit_prompts()
        n_ended = self._collect()
        self._poll_secs = MIN_POLL_SECS if n_ended else min(self._poll_secs * 1.5, MAX_POLL_SECS)
        if warning := self.monitor.check():
            self.listener.notice(warning)
        return more or bool(self.pending)

    def cancel(self) -> None:
        """Cancel the pending prompts; keep answers that complete meanwhile."""
        for pending in self.pending.values():
            # One that has ended, or cannot be reached, is found again by the next start.
            with contextlib.suppress(ChatError):
                turns.cancel(caller=self.caller, generation_id=pending.generation_id)
        deadline = time.monotonic() + CANCEL_SECS
        while self.pending and time.monotonic() < deadline:
            for row in self._ended_rows():
                pending = self.pending.pop(row.pk)
                if row.status == Status.COMPLETE:
                    self._write(pending.prompt, row)
            time.sleep(MIN_POLL_SECS)

    # ---- submitting ----

    def _submit_prompts(self) -> bool:
        """Return whether there are more prompts to submit."""
        while len(self.pending) < self.concurrency:
            if time.monotonic() < self._not_before or self.stopping.is_set():
                return True
            item = self._deferred or next(self._remaining, None)
            self._deferred = None
            if item is None:
                return False
            if isinstance(item, LineFailure):
                self._fail(item)
            else:
                self._warn_of_unknown_fields(item)
                self._submit(item)
        return True

    def _warn_of_unknown_fields(self, prompt: BatchPrompt) -> None:
        for name in prompt.unknown_fields:
            if name not in self._unknown_fields and len(self._unknown_fields) < MAX_UNKNOWN_FIELDS:
                self._unknown_fields.add(name)
                self.listener.notice(f"{self.source.unit} {prompt.line}: the unknown option {name[:100]!r} is ignored")

    def _submit(self, prompt: BatchPrompt, attempt: int = 0) -> None:
        try:
            pending = self._submitter.submit(prompt, attempt)
        except ChatError as error:
            if error.code in TRANSIENT:
                self._deferred = prompt
                self._not_before = time.monotonic() + min(error.retry_after_secs or 1, MAX_WAIT_SECS)
                if error.code == "store_unavailable":
                    close_old_connections()
            elif error.status >= 500:
                raise BatchError(f"the service cannot take prompts: {error.message}") from error
            else:
                self._fail(LineFailure(prompt.line, prompt.prompt_id, error.code, error.message))
            return
        self.pending[pending.generation_id] = pending

    # ---- collecting ----

    def _collect(self) -> int:
        """Return how many prompts ended."""
        try:
            rows = self._ended_rows()
            with translated():
                existing_ids = set(Generation.objects.filter(pk__in=self.pending.keys()).values_list("pk", flat=True))
        except ChatError:
            close_old_connections()  # the database is unreachable; the monitor limits for how long
            return 0
        missing = self.pending.keys() - existing_ids
        for row in rows:
            self._finish(self.pending.pop(row.pk), row)
        for generation_id in missing:
            # Deleted by an operator, or by the reaper while this process was suspended.
            self._retry_or_fail(self.pending.pop(generation_id), DELETED, "it was deleted before it was read")
        if rows or missing:
            self._not_before = 0.0  # a place is free, whatever Retry-After named
        return len(rows) + len(missing)

    def _ended_rows(self) -> list[Generation]:
        with translated():
            ended = Generation.objects.filter(pk__in=self.pending.keys(), status__in=ENDED)
            pks = list(ended.values_list("pk", flat=True))
        rows = []
        for pk in pks:
            # A row deleted meanwhile is found missing by the next call.
            with contextlib.suppress(NotFound):
                rows.append(turns.get_generation(caller=self.caller, generation_id=pk))
        return rows

    def _finish(self, pending: PendingPrompt, row: Generation) -> None:
        if row.status == Status.COMPLETE:
            self._write(pending.prompt, row)
        else:
            code = row.error_code or row.finish_reason or str(row.status)
            self._retry_or_fail(pending, code, row.error_message or f"the answer was {row.status}")

    def _write(self, prompt: BatchPrompt, row: Generation) -> None:
        body = answers.answer(row)
        self.output.append({"line": prompt.line, "id": prompt.prompt_id, **body, "digest": prompt.digest})
        self.listener.answered(row.n_completion_tokens)

    def _retry_or_fail(self, pending: PendingPrompt, code: str, message: str) -> None:
        # Work of a killed run may have been cancelled with it, which says nothing about the prompt.
        was_lost = code == DELETED and pending.attempt == 0
        if pending.is_new and not was_lost:
            self._fail(LineFailure(pending.prompt.line, pending.prompt.prompt_id, code, message))
        else:
            self._submit(pending.prompt, pending.attempt + 1)

    def _fail(self, failure: LineFailure) -> None:
        self.n_failed += 1
        self.output.append_failure(failure)
        self.listener.failed(failure)
