"""A claimed generation while this worker computes it, divided by owner.

field        content                                           written by
tokens       all emitted tokens, of earlier workers too        the dispatcher's thread, once it was added
location     the runner that computes it, its exported state   the dispatcher's thread
stop         the ending that was requested, and when           the dispatcher's thread
deaths       runner exits blamed on it                         ``crash_attribution``
timing       measurements over all its runners                 the dispatcher's thread
prefill      computed prompt tokens, last report               the dispatcher's thread
the rest     the request, unchanged from claim to end          nothing

The task that claimed it waits in ``wait`` and reads the fields after that.
"""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import msgspec

from inference.dispatch.generation_timing import GenerationTiming, PrefillReport
from inference.engine.params import SequenceParams
from inference.engine.protocol.frames import Emission, ExportedSequence, Submit
from inference.models import Generation
from inference.queue.results import Ending, FinalText, storable
from inference.token_stream.entries import TokenEntry


class ClaimState(StrEnum):
    """State of the claim when the dispatcher has finished with the generation."""

    ENDED = "ended"  # the generation is over; the row has to be finished
    RELEASED = "released"  # this worker stops; the row returns to the queue
    LOST = "lost"  # the row has another owner or was deleted: nothing may be written


@dataclass(frozen=True)
class GenerationOutcome:
    """``final_text`` is None when no runner reported it; timings are in ms."""

    claim: ClaimState
    ending: Ending | None = None
    final_text: FinalText | None = None
    n_cached: int = 0
    timings: dict[str, float] = field(default_factory=dict)


@dataclass
class StopRequest:
    """A cancel that was sent to the runner. ``ending``: the ending that its acknowledgement leads to."""

    ending: Ending
    sent_at: float
    n_steps: int = 0  # that the runner has reported since


@dataclass
class RunnerDeaths:
    """``recent``: exits blamed on the sequence since it last emitted a token."""

    recent: int = 0
    total: int = 0


@dataclass
class Location:
    """``device`` None: in no runner. ``state_path``: its exported KV state, for the next runner.

    ``checkpoint_path``: a KV state of its prompt, for the next runner if this one dies."""

    device: str | None = None
    is_exporting: bool = False  # the runner was sent an export
    state_path: str = ""
    checkpoint_path: str = ""
    n_tokens_at_submit: int = 0

    def enter(self, device: str, n_tokens: int) -> None:
        self.device, self.n_tokens_at_submit, self.state_path = device, n_tokens, ""

    def leave(self) -> None:
        self.device, self.is_exporting = None, False


@dataclass(eq=False)
class ActiveGeneration:
    """``deadline`` is on the monotonic clock of this process."""

    generation_id: UUID
    epoch: int
    prompt: list[int]
    params: SequenceParams
    priority: int
    deadline: float | None = None
    session_id: str = ""
    tokens: list[TokenEntry] = field(default_factory=list)
    location: Location = field(default_factory=Location)
    stop: StopRequest | None = None
    deaths: RunnerDeaths = field(default_factory=RunnerDeaths)
    timing: GenerationTiming = field(default_factory=GenerationTiming)
    prefill: PrefillReport = field(default_factory=PrefillReport)

    def __post_init__(self) -> None:
        self._done = threading.Event()
        self._outcome: GenerationOutcome | None = None

    @classmethod
    def of(cls, row: Generation, *, deadline: float | None) -> "ActiveGeneration":
        stored = msgspec.convert(row.params, SequenceParams, strict=False)
        params = msgspec.structs.replace(stored, cache_caller=row.owner)
        return cls(row.pk, row.claim_epoch, row.prompt_ids, params, row.priority, deadline, row.session_id)

    @property
    def sequence_id(self) -> str:
        """Includes the epoch, since a runner may still hold the sequence of an earlier claim."""
        return f"{self.generation_id}/{self.epoch}"

    @property
    def device(self) -> str | None:
        return self.location.device

    @property
    def is_in_runner(self) -> bool:
        return self.location.device is not None

    @property
    def is_proven(self) -> bool:
        """True when the present runner has computed a token of it."""
        return self.is_in_runner and len(self.tokens) > self.location.n_tokens_at_submit

    def submission(self, now: float, *, checkpoint_folder: str = "", checkpoint_bytes: int = 0) -> Submit:
        return Submit(
            sequence_id=self.sequence_id,
            prompt=self.prompt,
            params=self.params,
            emitted=[token.token for token in self.tokens],
            priority=self.priority,
            timeout_secs=None if self.deadline is None else max(0.0, self.deadline - now),
            # An exported state is the longer one.
            state=self.location.state_path or self.location.checkpoint_path,
            keeps_state=not self.location.state_path,
            checkpoint_folder=checkpoint_folder,
            checkpoint_bytes=checkpoint_bytes,
        )

    def add_token(self, emission: Emission, device: str, now: float) -> TokenEntry:
        """Append an emitted token. Raises RuntimeError for one that does not follow the last."""
        if emission.index != len(self.tokens) + 1:
            raise RuntimeError(f"token {emission.index} of {self.sequence_id} came after {len(self.tokens)}")
        self.timing.note_token(now)
        token = TokenEntry(
            index=emission.index,
            token=emission.token,
            text=storable(emission.text),
            thought=storable(emission.thought),
            device=device,
            logprobs=emission.logprobs,
        )
        self.tokens.append(token)
        return token

    def note_export(self, exported: ExportedSequence) -> None:
        self.location.state_path = exported.path
        self.timing.note_export(exported)

    def end(self, outcome: GenerationOutcome) -> None:
        self._outcome = outcome
        self._done.set()

    def wait(self, timeout_secs: float | None = None) -> GenerationOutcome | None:
        """Return the outcome, or None after ``timeout_secs`` without one."""
        self._done.wait(timeout_secs)
        return self._outcome
