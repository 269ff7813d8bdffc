"""One runner's loop over one backend: schedule, decode, sample, emit.

Knows no process and no pipe: frames come in by ``handle`` and go out by ``send``. ``step`` is one pass.
"""

import logging
import time
from collections.abc import Callable
from itertools import zip_longest

from inference.engine.backends.backend import Backend, Logits, Slice
from inference.engine.config import MEBIBYTE, EngineConfig
from inference.engine.core.batch_cost import BatchCost
from inference.engine.core.migration import SequenceMigrator
from inference.engine.core.request_validation import refusal
from inference.engine.core.scheduler import PlannedSlice, Scheduler
from inference.engine.core.step_cost import StepCost
from inference.engine.errors import BackendError, BadLogitsError
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.kv_cache.snapshots import SnapshotDisk
from inference.engine.protocol.frames import (
    Cancel,
    Deferred,
    Emission,
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
)
from inference.engine.sampling.logprobs import TokenLogprobs, token_logprobs
from inference.engine.sampling.prompt_lookup import PromptLookup
from inference.engine.sampling.sampler import Candidates, Sampler
from inference.engine.sequences.sequence import Sequence, SequenceState
from inference.engine.text.detokenizer import Detokenizer

logger = logging.getLogger(__name__)


class EngineLoop:
    """Not thread safe: one thread calls everything."""

    def __init__(
        self,
        backend: Backend,
        config: EngineConfig,
        send: Callable[[FromRunner], None],
        disk: SnapshotDisk | None = None,
        settings: str = "",
    ) -> None:
        self._backend = backend
        self._vocabulary = backend.vocabulary
        self._send = send
        self._cost = StepCost(config.step_budget_ms)
        self._shapes = BatchCost(min(backend.max_outputs, backend.batch_size) if config.draft_max else 0)
        self._candidates = Candidates(backend.vocabulary.n_tokens)
        self._n_arrived = 0
        self._n_cached = 0  # tokens that sequences admitted since the last Step found computed
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
            self._shapes,
            parallel=config.parallel,
            batch_size=backend.batch_size,
            draft_max=config.draft_max,
            mixes=config.mixes_prefill_and_decode,
        )
        self._mover = SequenceMigrator(self.scheduler, cache, settings, maps=config.maps_states)

    # ---- frames in ----

    def handle(self, frame: Submit | Cancel | Export | ExportCache | Import | Purge) -> None:
        match frame:
            case Submit():
                self._submit(frame)
            case Cancel(sequence_id):
                sequence = self.scheduler.find(sequence_id)
                # Unknown: it ended while the cancel was on its way, and that end was or will be told.
                if sequence is not None:
                    self._end(sequence, "cancelled")
            case Export():
                self._send(self._mover.export(frame, _times))
            case ExportCache():
                self._send(self._mover.export_cache(frame))
            case Import():
                self._send(self._mover.take_in(frame))
            case Purge(number, tags):
                n_states = self.scheduler.cache.purge(tags)
                is_complete = self.scheduler.cache.snapshots.has_removed_all
                self._send(Purged(number, n_states, is_complete))

    def _submit(self, submit: Submit) -> None:
        if self.scheduler.find(submit.sequence_id) is not None:
            logger.warning("sequence %s was submitted twice; the first goes on", submit.sequence_id)
            return
        refused = refusal(submit, n_vocabulary=self._vocabulary.n_tokens, n_cells=self.pool.n_cells)
        if refused is not None:
            self._send(Rejected(submit.sequence_id, *refused))
            return
        sequence = self._sequence(submit)
        self._mover.take_state(submit, sequence)
        self.scheduler.add(sequence)
        reason = self._replay(sequence, submit.emitted)
        if reason is not None:
            self._end(sequence, reason)

    def _sequence(self, submit: Submit) -> Sequence:
        params = submit.params
        self._n_arrived += 1
        forbidden = self._vocabulary.eog_tokens if params.ignore_eos else ()
        now = time.monotonic()
        return Sequence(
            id=submit.sequence_id,
            tokens=submit.prompt + submit.emitted,
            n_prompt=len(submit.prompt),
            priority=submit.priority,
            arrival=self._n_arrived,
            max_tokens=params.max_tokens,
            cache_prompt=params.cache_prompt,
            ephemeral=params.ephemeral,
            tags=frozenset(params.cache_tags),
            sampler=Sampler(params.sampling, self._candidates, forbidden),
            text=Detokenizer.of(params),
            lookup=PromptLookup(self._vocabulary.eog_tokens),
            n_logprobs=params.n_logprobs,
            arrived_at=now,
            ends_at=None if submit.timeout_secs is None else now + submit.timeout_secs,
        )

    def _replay(self, sequence: Sequence, emitted: list[int]) -> str | None:
        """Bring the text to where a former runner left it; why the sequence is over already, or ``None``."""
        for token in emitted:
            sequence.text.push(self._vocabulary.piece(token))
        if sequence.text.stopped:
            return "stop"
        return "length" if sequence.n_generated >= sequence.max_tokens else None

    def tidy(self) -> bool:
        """A little work while nothing runs; False when none is left."""
        return self._measure_shape() or self.scheduler.cache.tidy()

    def _measure_shape(self) -> bool:
        n_rows = self._shapes.next_wanted
        slot = self.pool.take_slot() if n_rows and self.pool.n_free >= n_rows else None
        if not n_rows or slot is None:
            return False
        began = time.monotonic()
        rows = self._backend.decode([Slice(slot, 0, [self._vocabulary.bos or 0] * n_rows, n_rows)])
        if rows is not None:
            self._shapes.observe((time.monotonic() - began) * 1000)
        self._backend.remove(slot)
        self.pool.release(slot)
        return rows is not None

    def close(self, timeout_secs: float) -> None:
        """The end of this loop; what it computed goes to disk, as far as the time goes."""
        self.scheduler.close(timeout_secs)

    # ---- one pass ----

    def step(self) -> bool:
        """Compute one batch; False when there was nothing to do."""
        began = time.monotonic()
        for overdue in self.scheduler.overdue(began):
            self._end(overdue, "timeout")
        planned = self.scheduler.plan()
        for held, reason in self.scheduler.take_deferred():
            self._send(Deferred(held.id, reason))
        if not planned:
            self.scheduler.check()
            return False
        self._note_admitted(planned, began)
        logits = self._backend.decode([each.as_slice() for each in planned])
        if logits is None:
            self.scheduler.relieve(planned)
        else:
            self._take_in(planned, logits, began)
        return True

    def _take_in(self, planned: list[PlannedSlice], logits: list[Logits], began: float) -> None:
        """The batch was computed: what follows from it, and what it cost."""
        n_decode = sum(each.sequence.state is SequenceState.DECODE for each in planned)
        n_prefill = sum(each.n_tokens for each in planned) - n_decode
        n_drafted = sum(len(each.draft) for each in planned)
        n_decode += n_drafted
        self.scheduler.done(planned)
        reading = [each.sequence for each in planned if each.sequence.state is SequenceState.PREFILL]
        progress = [PrefillProgress(each.id, each.n_computed, len(each.tokens)) for each in reading]
        emissions, ended = self._sample(planned, logits)
        step_ms = (time.monotonic() - began) * 1000
        self._cost.observe(n_decode, n_prefill, step_ms)
        for each in progress:
            self._send(each)
        self._send(
            Step(
                emissions=emissions,
                n_prefill=n_prefill,
                n_decode=n_decode,
                step_ms=step_ms,
                n_drafted=n_drafted,
                n_accepted=self.scheduler.n_accepted,
                n_sequences=len(planned),
                **self._memory_told(),
            )
        )
        for sequence, reason in ended:
            self._end(sequence, reason)

    def _note_admitted(self, planned: list[PlannedSlice], now: float) -> None:
        for each in planned:
            if each.sequence.admitted_at is None:
                each.sequence.admitted_at = now
                self._n_cached += each.sequence.n_cached

    def _memory_told(self) -> dict[str, int]:
        """The part of a Step that is about cells and who waits for them."""
        n_cached, self._n_cached = self._n_cached, 0
        n_free, n_used = self.pool.n_free, self.pool.n_used
        return {
            "n_cached": n_cached,
            "n_waiting": len(self.scheduler.waiting),
            "cells_free": n_free,
            "cells_used": n_used,
            "cells_cached": self.pool.n_cells - n_free - n_used,
        }

    def _sample(
        self, planned: list[PlannedSlice], logits: list[Logits]
    ) -> tuple[list[Emission], list[tuple[Sequence, str]]]:
        """What follows the known tokens of every sequence that has them all computed, and which of them end by it."""
        emissions: list[Emission] = []
        ended: list[tuple[Sequence, str]] = []
        completed = [each for each in planned if each.sequence.n_pending == 0]
        n_wanted = sum(1 + len(each.draft) for each in completed)
        if n_wanted != len(logits):
            raise BackendError(f"{n_wanted} rows of logits are waited for, {len(logits)} came")
        rows = iter(logits)
        for each in completed:
            sequence = each.sequence
            try:
                reason = self._go_on(each, [next(rows) for _ in range(1 + len(each.draft))], emissions)
            except BadLogitsError as error:
                # One sequence's numbers are broken: it alone ends, the others go on.
                logger.error("sequence %s: %s", sequence.id, error)  # noqa: TRY400  the trace says nothing more
                reason = error.code
            if reason is not None:
                ended.append((sequence, reason))
        return emissions, ended

    def _go_on(self, planned: PlannedSlice, rows: list[Logits], emissions: list[Emission]) -> str | None:
        """One token, and another one as long as the guess was right; the reason, if the sequence ends by them."""
        sequence = planned.sequence
        n_accepted = 0
        reason: str | None = None
        try:
            for row, guessed in zip_longest(rows, planned.draft):
                raw = row.copy() if sequence.n_logprobs else None  # the sampler changes them
                token = sequence.sampler.sample(row, sequence.tokens, sequence.n_generated + 1)
                told = None if raw is None else token_logprobs(raw, token, sequence.n_logprobs)
                emission, reason = self._accept(sequence, token, told)
                if emission is not None:
                    emissions.append(emission)
                if reason is not None or token != guessed:
                    break
                n_accepted += 1
        finally:
            self.scheduler.settle(planned, n_accepted)
        return reason

    def _accept(
        self, sequence: Sequence, token: int, logprobs: TokenLogprobs | None
    ) -> tuple[Emission | None, str | None]:
        """Append a drawn token: its emission, unless it only says "the end"; the reason, if the sequence ends by it."""
        now = time.monotonic()
        if sequence.state is SequenceState.PREFILL:
            sequence.move(SequenceState.DECODE)
            sequence.prefilled_at = sequence.prefilled_at or now
        if self._vocabulary.is_eog(token):
            return None, "stop"
        sequence.first_token_at = sequence.first_token_at or now
        sequence.tokens.append(token)
        text = sequence.text.push(self._vocabulary.piece(token))
        emission = Emission(sequence.id, sequence.n_generated, token, text, logprobs)
        if sequence.text.stopped:
            return emission, "stop"
        is_full = sequence.n_generated >= sequence.max_tokens or len(sequence.tokens) >= self.pool.n_cells
        return emission, "length" if is_full else None

    # ---- frames out ----

    def _end(self, sequence: Sequence, reason: str) -> None:
        prefill_ms, decode_ms = _times(sequence)
        text = sequence.text.flush()
        # Cells that gave no usable numbers would give none to anybody else.
        self.scheduler.end(sequence, keep=reason != BadLogitsError.code)
        if reason == BadLogitsError.code:
            self._send(Rejected(sequence.id, reason, "the model's numbers for this sequence are not usable"))
            return
        self._send(
            Ended(
                sequence_id=sequence.id,
                reason=reason,
                text=text,
                n_kept=sequence.text.n_kept,
                n_cached=sequence.n_cached,
                prefill_ms=prefill_ms,
                first_token_ms=_ms(sequence.arrived_at, sequence.first_token_at),
                decode_ms=decode_ms,
            )
        )


def _times(sequence: Sequence) -> tuple[float, float]:
    """How long it has read, and answered, here; ms."""
    now = time.monotonic()
    return _ms(sequence.admitted_at, sequence.prefilled_at or now), _ms(sequence.first_token_at, now)


def _ms(since: float | None, until: float | None) -> float:
    """From one clock reading to another; 0 when one of the moments never came."""
    return 0.0 if since is None or until is None else (until - since) * 1000
