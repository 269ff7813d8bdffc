"""Registry of the generations that this worker computes. Knows no lease and starts no runner.

Each is in the runner of one device, or in none and waits for one, with a state to go on from if it has moved.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from inference.dispatch import crash_attribution
from inference.dispatch.events import Sink
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, Outcome
from inference.engine.protocol.frames import (
    Cancel,
    Deferred,
    Emission,
    Ended,
    Exported,
    Frame,
    PrefillProgress,
    Rejected,
    Step,
)
from inference.enums import FinishReason, Status, StreamState
from inference.monitoring.engine_metrics import StepMeter
from inference.queue.results import CANCELLED, TIMED_OUT, Ending, FinalText, failed, storable
from inference.token_stream.entries import StatusEntry, TokenEntry

log = logging.getLogger(__name__)

PROGRESS_SECS = 0.25  # at most one status of a sequence in this time


class ActiveGenerations:
    """``send`` hands a frame to the runner of a device; ``lives`` is by generation, in order of arrival."""

    def __init__(self, sink: Sink, send: Callable[[str, Frame], None]) -> None:
        self.by_id: dict[UUID, ActiveGeneration] = {}
        self.n_tokens = 0  # given out since the start
        self.n_ended = 0
        self.meter = StepMeter()
        self._ended_sessions: list[str] = []
        self._sink = sink
        self._send = send

    def on(self, device: str) -> list[ActiveGeneration]:
        return [generation for generation in self.by_id.values() if generation.device == device]

    def waiting(self) -> list[ActiveGeneration]:
        return [generation for generation in self.by_id.values() if generation.device is None]

    def take_ended_sessions(self) -> list[str]:
        """SessionHolds of answers that have ended since the last call."""
        ended, self._ended_sessions = self._ended_sessions, []
        return ended

    # ---- coming and going ----

    def take(self, generation: ActiveGeneration, now: float) -> None:
        generation.added_at = now
        former = self.by_id.get(generation.generation_id)
        if former is not None:
            # Taken from us while we were suspended or the database was away, and claimed by us again.
            self.remove(former, Outcome(ClaimState.LOST))
        self.by_id[generation.generation_id] = generation

    def stop(self, generation: ActiveGeneration, ending: Ending | None, now: float) -> None:
        """``ending`` None: the claim is lost."""
        if ending is None:
            self.remove(generation, Outcome(ClaimState.LOST))
        elif generation.device is None:
            self.remove(generation, Outcome(ClaimState.ENDED, ending))
        elif generation.stopping is None:
            generation.stopping, generation.stop_sent_at = ending, now
            self._send(generation.device, Cancel(generation.sequence_id))

    def remove(self, generation: ActiveGeneration, outcome: Outcome) -> None:
        del self.by_id[generation.generation_id]
        if outcome.claim is ClaimState.ENDED:
            self.n_ended += 1
            self._ended_sessions += [generation.session_id] if generation.session_id else []
        if generation.device is not None and outcome.final_text is None:
            self._send(
                generation.device, Cancel(generation.sequence_id)
            )  # to one that has ended by itself this says nothing
        if generation.state_path:
            Path(generation.state_path).unlink(missing_ok=True)
        generation.end(outcome)

    def submit(self, generation: ActiveGeneration, device: str, now: float) -> None:
        """Give it to the runner of the device, with the state it has from a former one."""
        generation.device, generation.n_at_submit = device, len(generation.tokens)
        generation.submitted_at = generation.submitted_at or now
        frame = generation.submission(now)
        generation.state_path = ""
        self._send(device, frame)

    def exported(self, device: str, exported: Exported) -> None:
        """Those that were to move are in no runner; whoever takes them goes on from their states, or tokens."""
        given = {each.sequence_id: each for each in exported.sequences}
        for generation in self.on(device):
            if not generation.is_leaving:
                continue
            generation.device, generation.is_leaving = None, False
            found = given.get(generation.sequence_id)
            if found is not None:
                generation.carry(found)
            if generation.stopping is not None:
                self.remove(generation, Outcome(ClaimState.ENDED, generation.stopping))

    def runner_exited(
        self, device: str, reason: str, *, state: StreamState, told: str, is_failure: bool = True
    ) -> None:
        """Every generation sequence goes on elsewhere from its last token, but for the one that kills runners.

        ``is_failure``: nobody here ended that runner on purpose.
        """
        inside = self.on(device)
        culprits = crash_attribution.blame(inside) if is_failure else []
        for generation in inside:
            generation.device, generation.is_leaving = None, False
            if generation in culprits:
                message = f"the model process ended {generation.total_blames} times while computing this ({reason})"
                self.remove(generation, Outcome(ClaimState.ENDED, failed("runner_crashed", message)))
            elif generation.stopping is not None:
                self.remove(generation, Outcome(ClaimState.ENDED, generation.stopping))
            else:
                self.say(generation, state, reason=told)

    # ---- frames ----

    def handle(self, device: str, frame: Step | Deferred | PrefillProgress | Ended | Rejected, now: float) -> None:
        if isinstance(frame, Step):
            self.meter.add(frame)
            entries = [self._token_came(device, emission, now) for emission in frame.emissions]
            self._sink([entry for entry in entries if entry is not None])
            return
        generation = self._of_sequence(device, frame.sequence_id)
        if generation is None:
            return
        match frame:
            case Deferred(reason=reason):
                generation.last_progress_at = 0.0  # that it goes on again is told at once
                self.say(generation, StreamState.QUEUED, reason=reason)
            case PrefillProgress(n_done=n_done, n_total=n_total):
                self._progress_came(generation, n_done, n_total, now)
            case Ended():
                self.remove(generation, _outcome(generation, frame))
            case Rejected(code=code, message=message):
                self.remove(generation, Outcome(ClaimState.ENDED, failed(code, message)))

    def _of_sequence(self, device: str, sequence_id: str) -> ActiveGeneration | None:
        """Return the generation of this sequence; None once it was removed or has moved to another runner."""
        generation = self.by_id.get(UUID(sequence_id.partition("/")[0]))
        return (
            generation
            if generation is not None and generation.sequence_id == sequence_id and generation.device == device
            else None
        )

    def _token_came(self, device: str, emission: Emission, now: float) -> tuple[ActiveGeneration, TokenEntry] | None:
        generation = self._of_sequence(device, emission.sequence_id)
        if generation is None:
            return None
        if emission.index != len(generation.tokens) + 1:
            raise RuntimeError(
                f"token {emission.index} of {generation.sequence_id} came after {len(generation.tokens)}"
            )
        generation.note_token(now)
        token = TokenEntry(index=emission.index, token=emission.token, text=storable(emission.text), device=device)
        generation.tokens.append(token)
        crash_attribution.clear(generation)
        self.n_tokens += 1
        return generation, token

    def _progress_came(self, generation: ActiveGeneration, n_done: int, n_total: int, now: float) -> None:
        generation.n_read = n_done
        progress = n_done / max(1, n_total)
        if now - generation.last_progress_at >= PROGRESS_SECS or progress >= 1.0:
            generation.last_progress_at = now
            self.say(generation, StreamState.PREFILL, progress=round(progress, 3))

    def say(
        self,
        generation: ActiveGeneration,
        state: StreamState,
        *,
        progress: float | None = None,
        reason: str | None = None,
    ) -> None:
        self._sink(
            [(generation, StatusEntry(index=len(generation.tokens), state=state, progress=progress, reason=reason))]
        )


def _outcome(generation: ActiveGeneration, frame: Ended) -> Outcome:
    natural = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(frame.reason)
    # An answer that ended by itself before the cancel reached it is complete.
    stopped = generation.stopping or (TIMED_OUT if frame.reason == "timeout" else CANCELLED)
    return Outcome(
        ClaimState.ENDED,
        Ending(Status.COMPLETE, natural) if natural else stopped,
        FinalText(storable(frame.text), frame.n_kept),
        n_cached=frame.n_cached if generation.n_cached is None else generation.n_cached,
        timings=generation.timings(prefill_ms=frame.prefill_ms, decode_ms=frame.decode_ms),
    )
