"""Event loop of one runner over one backend: schedule, decode, sample, emit.

Knows no process and no pipe: frames come in by ``handle`` and go out by ``send``. ``step`` is one pass.
"""

import logging
import time
from collections.abc import Callable

from inference.engine.backends.backend import Backend, Logits, Slice
from inference.engine.config import MEBIBYTE, EngineConfig
from inference.engine.core.batch_cost import BatchCost
from inference.engine.core.migration import SequenceMigrator
from inference.engine.core.output_processor import OutputProcessor
from inference.engine.core.planned_slice import PlannedSlice
from inference.engine.core.prefill_checkpoints import PrefillCheckpoints
from inference.engine.core.request_validation import rejection
from inference.engine.core.scheduler import Scheduler
from inference.engine.core.sequence_factory import SequenceFactory
from inference.engine.core.state_writer import StateWriter
from inference.engine.core.step_cost import StepCost
from inference.engine.core.step_guard import StepGuard
from inference.engine.errors import BadLogitsError, GrammarError, SequenceError, StepAborted
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.kv_cache.snapshots import SnapshotDisk
from inference.engine.protocol.frames import (
    Cancel,
    Deferred,
    Ended,
    Export,
    ExportCache,
    FromRunner,
    Import,
    PrefillProgress,
    Purge,
    Purged,
    Rejected,
    Step,
    Submit,
    ToRunner,
)
from inference.engine.sequences.sequence import Sequence, SequenceState

log = logging.getLogger(__name__)


class EngineLoop:
    """Not thread safe: one thread makes all calls."""

    def __init__(
        self,
        backend: Backend,
        config: EngineConfig,
        send: Callable[[FromRunner], None],
        disk: SnapshotDisk | None = None,
        fingerprint: str = "",
    ) -> None:
        """``fingerprint`` identifies usable KV states; without one no state leaves this runner."""
        self._backend = backend
        self._send = send
        self.guard = StepGuard(backend.watch)
        self._cost = StepCost(config.step_budget_ms)
        self._batch_cost = BatchCost(min(backend.max_outputs, backend.batch_size) if config.draft_max else 0)
        self._n_cached = 0  # prompt tokens reused by sequences admitted since the last Step
        self.pool = SlotPool(backend.n_cells, backend.n_slots)
        cache = PrefixCache(
            self.pool,
            backend,
            ram_bytes=config.cache_ram_mb * MEBIBYTE,
            disk=disk,
            max_idle_cells=config.max_idle_cells,
        )
        self.scheduler = Scheduler(
            self.pool,
            cache,
            self._cost,
            self._batch_cost,
            parallel=config.parallel,
            batch_size=backend.batch_size,
            draft_max=config.draft_max,
            mixes=config.mixes_prefill_and_decode,
        )
        self._factory = SequenceFactory(backend.vocabulary)
        self._output = OutputProcessor(backend.vocabulary, self.scheduler, backend.n_cells)
        writer = StateWriter(fingerprint)
        self._migrator = SequenceMigrator(self.scheduler, cache, fingerprint, writer, maps=config.maps_states)
        self._checkpoints = PrefillCheckpoints(self.scheduler, writer, interval_secs=config.checkpoint_secs)

    # ---- frames in ----

    def prepare(self, frame: ToRunner) -> None:
        """Do the slow part of a frame before ``handle``; the one method for another thread."""
        if isinstance(frame, Submit) and frame.params.grammar:
            self._factory.grammars.prepare(frame.params.grammar)

    def handle(self, frame: Submit | Cancel | Export | ExportCache | Import | Purge) -> None:
        self.guard.begin_work()
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel(sequence_id):
                self.guard.cancel_handled(sequence_id)
                sequence = self.scheduler.sequences.find(sequence_id)
                # Unknown: the sequence ended while the cancel was on its way, and its Ended is sent already.
                if sequence is not None:
                    self._end(sequence, "cancelled")
            case Export():
                self._send(self._migrator.export(frame, elapsed_ms))
            case ExportCache():
                self._send(self._migrator.export_cache(frame))
            case Import():
                self._send(self._migrator.import_states(frame))
            case Purge(number, tags):
                n_states = self.scheduler.cache.purge(tags)
                is_complete = self.scheduler.cache.snapshots.has_removed_all
                self._send(Purged(number, n_states, is_complete))

    def _submit(self, submit: Submit) -> None:
        if self.scheduler.sequences.find(submit.sequence_id) is not None:
            log.warning("duplicate submit ignored sequence=%s", submit.sequence_id)
            return
        rejected = rejection(submit, n_vocabulary=self._backend.vocabulary.n_tokens, n_cells=self.pool.n_cells)
        if rejected is not None:
            self._send(rejected)
            return
        try:
            sequence = self._factory.create(submit)
            reason = self._factory.replay(sequence, submit.emitted)
        except GrammarError as error:
            self._send(Rejected(submit.sequence_id, error.code, error.user_message))
            return
        self._migrator.adopt_state(submit, sequence)
        self.scheduler.sequences.add(sequence)
        if reason is not None:
            self._end(sequence, reason)

    # ---- idle work and shutdown ----

    def work_while_idle(self) -> bool:
        """Measure one batch size or write one state to disk; False when nothing is left to do."""
        self.guard.begin_work()
        n_rows = self._batch_cost.next_size
        slot = self.pool.take_slot() if n_rows and self.pool.n_free >= n_rows else None
        if n_rows and slot is not None:
            began = time.monotonic()
            rows = self._backend.decode([Slice(slot, 0, [self._backend.vocabulary.bos or 0] * n_rows, n_rows)])
            step_ms = (time.monotonic() - began) * 1000
            self._backend.remove(slot)
            self.pool.release(slot)
            if rows is not None:
                self._batch_cost.observe(step_ms)
                return True
        return self.scheduler.cache.flush_one()

    @property
    def is_ready_for_grammars(self) -> bool:
        return self._factory.grammars.has_read_vocabulary

    def make_ready_for_grammars(self) -> None:
        """Do what the first grammar would wait for; takes a second, and can not be interrupted."""
        self.guard.begin_work()
        self._factory.grammars.read_vocabulary()

    def close(self, timeout_secs: float) -> None:
        """End the loop; computed KV state is written to disk as far as the time allows."""
        self.scheduler.close(timeout_secs)

    # ---- one pass ----

    def step(self) -> bool:
        """Compute one batch; False when there was nothing to do."""
        began = time.monotonic()
        self.guard.begin_work()
        for sequence in self.scheduler.sequences.overdue(began):
            self._end(sequence, "timeout")
        batch = self.scheduler.plan()
        for sequence, reason in self.scheduler.sequences.take_deferred():
            self._send(Deferred(sequence.id, reason))
        if not batch:
            self.scheduler.check()
            return False
        for planned in batch:
            if planned.sequence.admitted_at is None:
                planned.sequence.admitted_at = began
                self._n_cached += planned.sequence.n_cached
        try:
            logits = self._decode(batch)
        except StepAborted:
            # Cancelled all of them: their ends follow with the frames that are handled next.
            self.scheduler.commit_aborted(batch, self._backend.n_positions)
            return True
        if logits is None:
            self.scheduler.recover_room(batch)
        else:
            self._finish_step(batch, logits, began)
        return True

    def _decode(self, batch: list[PlannedSlice]) -> list[Logits] | None:
        n_answers, n_prefill, n_drafted = _rows(batch)
        expected_ms = self._cost.expected_ms(n_answers + n_drafted, n_prefill)
        with self.guard.step((planned.sequence.id for planned in batch), expected_ms):
            return self._backend.decode([planned.as_slice() for planned in batch])

    def _finish_step(self, batch: list[PlannedSlice], logits: list[Logits], began: float) -> None:
        """Sample from a decoded batch, learn its cost, and send its frames."""
        n_answers, n_prefill, n_drafted = _rows(batch)
        self.scheduler.commit(batch)
        prompts = [planned.sequence for planned in batch if planned.sequence.state is SequenceState.PREFILL]
        progress = [
            PrefillProgress(prompt.id, prompt.n_computed, len(prompt.tokens), prompt.n_cached) for prompt in prompts
        ]
        emissions, ended = self._output.process(batch, logits)
        step_ms = (time.monotonic() - began) * 1000
        self._cost.observe(n_answers + n_drafted, n_prefill, step_ms)
        for frame in progress:
            self._send(frame)
        n_cached, self._n_cached = self._n_cached, 0
        n_free, n_used = self.pool.n_free, self.pool.n_used
        self._send(
            Step(
                emissions=emissions,
                n_prefill=n_prefill,
                n_decode=n_answers + n_drafted,
                step_ms=step_ms,
                n_drafted=n_drafted,
                n_accepted=self.scheduler.n_accepted,
                n_sequences=len(batch),
                n_cached=n_cached,
                n_waiting=len(self.scheduler.sequences.waiting),
                cells_free=n_free,
                cells_used=n_used,
                cells_cached=self.pool.n_cells - n_free - n_used,
            )
        )
        for sequence, reason in ended:
            self._end(sequence, reason)
        for checkpointed in self._checkpoints.note_step(batch, step_ms / 1000):
            self._send(checkpointed)

    def _end(self, sequence: Sequence, reason: str | SequenceError) -> None:
        prefill_ms, decode_ms = elapsed_ms(sequence)
        text = sequence.text.flush()
        # Cells that gave unusable logits would give them to other sequences too.
        self.scheduler.end(sequence, keep=not isinstance(reason, BadLogitsError))
        if isinstance(reason, SequenceError):
            self._send(Rejected(sequence.id, reason.code, reason.user_message))
            return
        self._send(
            Ended(
                sequence_id=sequence.id,
                reason=reason,
                text=text,
                thought=sequence.text.take_thought(),
                n_kept=sequence.text.n_kept,
                n_cached=sequence.n_cached,
                prefill_ms=prefill_ms,
                first_token_ms=_ms(sequence.arrived_at, sequence.first_token_at),
                decode_ms=decode_ms,
            )
        )


def _rows(batch: list[PlannedSlice]) -> tuple[int, int, int]:
    """Count the answers, prompt tokens and draft tokens of a batch."""
    n_answers = sum(planned.sequence.state is SequenceState.DECODE for planned in batch)
    n_prefill = sum(planned.n_tokens for planned in batch) - n_answers
    return n_answers, n_prefill, sum(len(planned.draft) for planned in batch)


def elapsed_ms(sequence: Sequence) -> tuple[float, float]:
    """Return the ms that a sequence has spent in prefill and in decode in this runner."""
    now = time.monotonic()
    return _ms(sequence.admitted_at, sequence.prefilled_at or now), _ms(sequence.first_token_at, now)


def _ms(since: float | None, until: float | None) -> float:
    """Return the ms between two clock readings in seconds; 0 when one of them is missing."""
    return 0.0 if since is None or until is None else (until - since) * 1000
