"""Turns logits into emissions: sampling, acceptance of drafts, detokenization and the ends of sequences.

Knows neither the admission of sequences nor frames other than ``Emission``.
"""

import logging
import time
from itertools import zip_longest

from inference.engine.backends.backend import Logits
from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.core.planned_slice import PlannedSlice
from inference.engine.core.scheduler import Scheduler
from inference.engine.errors import BackendError, SequenceError
from inference.engine.protocol.frames import Emission
from inference.engine.sampling.logprob_records import TokenLogprobs
from inference.engine.sampling.logprobs import token_logprobs
from inference.engine.sequences.sequence import Sequence, SequenceState

log = logging.getLogger(__name__)

EndedSequence = tuple[Sequence, str | SequenceError]  # with the reason


class OutputProcessor:
    def __init__(self, vocabulary: Vocabulary, scheduler: Scheduler, n_cells: int) -> None:
        self._vocabulary = vocabulary
        self._scheduler = scheduler
        self._n_cells = n_cells

    def process(self, batch: list[PlannedSlice], logits: list[Logits]) -> tuple[list[Emission], list[EndedSequence]]:
        """Sample for every sequence whose known tokens are all computed.

        ``logits`` are the rows of those sequences in the order of ``batch``, one more than draft tokens for each.
        Raises ``BackendError`` for any other number of rows. Changes ``logits``.
        """
        emissions: list[Emission] = []
        ended: list[EndedSequence] = []
        completed = [planned for planned in batch if planned.sequence.n_pending == 0]
        n_expected = sum(1 + len(planned.draft) for planned in completed)
        if n_expected != len(logits):
            raise BackendError(f"the batch needs {n_expected} rows of logits, the backend returned {len(logits)}")
        rows = iter(logits)
        for planned in completed:
            sequence = planned.sequence
            reason: str | SequenceError | None
            try:
                reason = self._sample(planned, [next(rows) for _ in range(1 + len(planned.draft))], emissions)
            except SequenceError as error:
                # Policy: only this sequence ends; the rows of the others are intact.
                log.error("no token can be drawn sequence=%s error=%s", sequence.id, error)  # noqa: TRY400  the trace adds nothing
                reason = error
            if reason is not None:
                ended.append((sequence, reason))
        return emissions, ended

    def _sample(self, planned: PlannedSlice, rows: list[Logits], emissions: list[Emission]) -> str | None:
        """Draw tokens while they equal the draft; returns the reason when the sequence ends."""
        sequence = planned.sequence
        n_accepted = 0
        reason: str | None = None
        try:
            for row, drafted in zip_longest(rows, planned.draft):
                raw = row.copy() if sequence.n_logprobs else None  # the sampler changes the row
                token = sequence.text.forced_token
                if token is None:
                    matcher = sequence.binding_matcher
                    token = sequence.sampler.sample(row, sequence.tokens, sequence.n_generated + 1, matcher)
                logprobs = None if raw is None else token_logprobs(raw, token, sequence.n_logprobs)
                emission, reason = self._append(sequence, token, logprobs)
                if emission is not None:
                    emissions.append(emission)
                if reason is not None or token != drafted:
                    break
                n_accepted += 1
        finally:
            self._scheduler.accept_draft(planned, n_accepted)
        return reason

    def _append(
        self, sequence: Sequence, token: int, logprobs: TokenLogprobs | None
    ) -> tuple[Emission | None, str | None]:
        """Append a drawn token; an end-of-generation token has no emission."""
        now = time.monotonic()
        if sequence.state is SequenceState.PREFILL:
            sequence.move(SequenceState.DECODE)
            sequence.prefilled_at = sequence.prefilled_at or now
        if self._vocabulary.is_eog(token):
            return None, "stop"
        sequence.first_token_at = sequence.first_token_at or now
        sequence.tokens.append(token)
        if matcher := sequence.binding_matcher:
            matcher.consume(token)
        text = sequence.text.push_token(token, self._vocabulary)
        thought = sequence.text.take_thought()
        emission = Emission(sequence.id, sequence.n_generated, token, text, logprobs, thought)
        if sequence.text.stopped or (sequence.matcher and sequence.matcher.is_complete):
            return emission, "stop"
        is_full = sequence.n_generated >= sequence.max_tokens or len(sequence.tokens) >= self._n_cells
        return emission, "length" if is_full else None
