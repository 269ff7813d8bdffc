"""One claimed generation while this worker computes it, and how that came to an end.

Shared by the task that waits, the placement that computes and the writer of its log; each field says who writes it.
"""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import msgspec

from inference.engine.params import SequenceParams
from inference.engine.protocol.frames import ExportedSequence, Submit
from inference.models import Generation
from inference.queue.results import Ending, FinalText
from inference.token_stream.entries import TokenEntry


class ClaimState(StrEnum):
    """What becomes of the claim."""

    ENDED = "ended"  # the generation is over; the row is to say so
    RELEASED = "released"  # this worker stops; the row goes back to the queue
    LOST = "lost"  # somebody else has the row, or it was deleted: nothing may be written


@dataclass(frozen=True)
class Outcome:
    """``flushed`` is None when no runner could say it; times are ms."""

    claim: ClaimState
    ending: Ending | None = None
    final_text: FinalText | None = None
    n_cached: int = 0
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class ActiveGeneration:
    """``deadline`` and all ``_at`` are on the monotonic clock of this process."""

    generation_id: UUID
    epoch: int
    prompt: list[int]
    params: SequenceParams
    priority: int
    deadline: float | None = None
    session_id: str = ""
    tokens: list[TokenEntry] = field(default_factory=list)  # all given out, by former workers too; placement appends

    # Written by the placement's thread only.
    stopping: Ending | None = None  # asked to stop, and how that will be called
    stop_sent_at: float | None = None
    added_at: float | None = None
    submitted_at: float | None = None
    first_token_at: float | None = None
    device: str | None = None  # in whose runner it is
    is_leaving: bool = False  # that runner was told to give it out
    state_path: str = ""  # its cells from a former runner, for the next one
    n_read: int = 0  # known tokens computed, as last told
    n_at_submit: int = 0
    blames: int = 0  # deaths of a runner since this sequence last proved that it can be computed
    total_blames: int = 0
    last_progress_at: float = 0.0
    n_cached: int | None = None  # of its prompt, as the first runner of several found it; None: it has not moved
    carried_ms: tuple[float, float] = (0.0, 0.0)  # read and answered, in former runners
    gpu_wait_ms: float = 0.0
    gpu_load_ms: float = 0.0
    restore_ms: float = 0.0
    moved_at: float | None = None  # left a runner, and has not spoken since

    def __post_init__(self) -> None:
        self._done = threading.Event()
        self._outcome: Outcome | None = None

    @classmethod
    def of(cls, row: Generation, *, deadline: float | None) -> "ActiveGeneration":
        params = msgspec.convert(row.params, SequenceParams, strict=False)
        return cls(row.pk, row.claim_epoch, row.prompt_ids, params, row.priority, deadline, row.session_id)

    @property
    def sequence_id(self) -> str:
        """Distinguishes two claims of one generation, of which the runner may still hold the first."""
        return f"{self.generation_id}/{self.epoch}"

    @property
    def is_in_runner(self) -> bool:
        return self.device is not None

    @property
    def is_proven(self) -> bool:
        """Whether the present runner has computed a token of it and lived."""
        return self.is_in_runner and len(self.tokens) > self.n_at_submit

    def submission(self, now: float) -> Submit:
        emitted = [token.token for token in self.tokens]
        return Submit(
            sequence_id=self.sequence_id,
            prompt=self.prompt,
            params=self.params,
            emitted=emitted,
            priority=self.priority,
            timeout_secs=None if self.deadline is None else max(0.0, self.deadline - now),
            state=self.state_path,
        )

    def carry(self, given: ExportedSequence) -> None:
        """What a runner says of it in giving it out."""
        self.state_path = given.path
        prefill_ms, decode_ms = self.carried_ms
        self.carried_ms = (prefill_ms + given.prefill_ms, decode_ms + given.decode_ms)
        # One that had computed nothing yet may find its beginning where it goes.
        if self.n_cached is None and given.path:
            self.n_cached = given.n_cached

    def note_token(self, now: float) -> None:
        if self.first_token_at is None:
            self.first_token_at = now
        if self.moved_at is not None:
            self.restore_ms += (now - self.moved_at) * 1000
            self.moved_at = None

    def timings(self, *, prefill_ms: float, decode_ms: float) -> dict[str, float]:
        """All of its runners together, and its waits as seen from here; ms."""
        found = {"prefill": prefill_ms + self.carried_ms[0], "decode": decode_ms + self.carried_ms[1]}
        if self.added_at is not None and self.submitted_at is not None:
            found["load"] = (self.submitted_at - self.added_at) * 1000
            if self.first_token_at is not None:
                found["first_token"] = (self.first_token_at - self.submitted_at) * 1000
        if self.gpu_wait_ms or self.gpu_load_ms or self.restore_ms:
            found["load"] = found.get("load", 0.0) + self.gpu_load_ms
            found |= {"gpu_wait": self.gpu_wait_ms, "restore": self.restore_ms}
        return found

    def end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._done.set()

    def wait(self, timeout_secs: float | None = None) -> Outcome | None:
        """The outcome, or None after ``timeout_secs`` without one."""
        self._done.wait(timeout_secs)
        return self._outcome
