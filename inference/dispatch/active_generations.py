"""Registry of the generations that this worker computes. Knows no lease and starts no runner.

A generation is in the runner of one device, or in none and waits, with an exported KV state if it has moved.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from inference.dispatch import crash_attribution
from inference.dispatch.events import Sink
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, GenerationOutcome, StopRequest
from inference.dispatch.state_folder import CheckpointFiles
from inference.engine.protocol.frames import (
    Cancel,
    Checkpointed,
    Deferred,
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
from inference.token_stream.entries import PromptTokens, StatusEntry, TokenEntry

log = logging.getLogger(__name__)


class ActiveGenerations:
    """``send`` sends a frame to the runner of a device; ``by_id`` is in order of arrival."""

    def __init__(self, sink: Sink, send: Callable[[str, Frame], None], checkpoints: CheckpointFiles) -> None:
        self.by_id: dict[UUID, ActiveGeneration] = {}
        self.n_tokens = 0  # emitted since the start
        self.n_ended = 0
        self.meter = StepMeter()
        self._ended_sessions: list[str] = []
        self._sink = sink
        self._send = send
        self._checkpoints = checkpoints

    def on_device(self, device: str) -> list[ActiveGeneration]:
        return [generation for generation in self.by_id.values() if generation.device == device]

    def unassigned(self) -> list[ActiveGeneration]:
        return [generation for generation in self.by_id.values() if generation.device is None]

    def stopping(self, device: str) -> list[StopRequest]:
        """List the cancels that the runner of the device has not acknowledged."""
        return [generation.stop for generation in self.on_device(device) if generation.stop is not None]

    def take_ended_sessions(self) -> list[str]:
        """Return the sessions whose generations have ended since the last call."""
        session_ids, self._ended_sessions = self._ended_sessions, []
        return session_ids

    # ---- from the claim to the end ----

    def add(self, generation: ActiveGeneration, now: float) -> None:
        generation.timing.added_at = now
        earlier_claim = self.by_id.get(generation.generation_id)
        if earlier_claim is not None:
            # Lost while this process was suspended or the database away, and claimed here again.
            self.remove(earlier_claim, GenerationOutcome(ClaimState.LOST))
        self.by_id[generation.generation_id] = generation

    def stop(self, generation: ActiveGeneration, ending: Ending | None, now: float) -> None:
        """``ending`` None: the claim is lost."""
        if ending is None:
            self.remove(generation, GenerationOutcome(ClaimState.LOST))
        elif generation.device is None:
            self.remove(generation, GenerationOutcome(ClaimState.ENDED, ending))
        elif generation.stop is None:
            generation.stop = StopRequest(ending, now)
            self._send(generation.device, Cancel(generation.sequence_id))

    def release_all(self) -> None:
        """Remove all generations; their rows return to the queue."""
        for generation in list(self.by_id.values()):
            self.remove(generation, GenerationOutcome(ClaimState.RELEASED))

    def remove(self, generation: ActiveGeneration, outcome: GenerationOutcome) -> None:
        del self.by_id[generation.generation_id]
        if outcome.claim is ClaimState.ENDED:
            self.n_ended += 1
            self._ended_sessions += [generation.session_id] if generation.session_id else []
        if generation.device is not None and outcome.final_text is None:
            # Ignored by the runner if the sequence has ended by itself.
            self._send(generation.device, Cancel(generation.sequence_id))
        if generation.location.state_path:
            Path(generation.location.state_path).unlink(missing_ok=True)
        self._checkpoints.remove(generation)
        generation.end(outcome)

    def submit(self, generation: ActiveGeneration, device: str, now: float) -> None:
        """Submit it to the runner of the device, with its exported KV state if it has one."""
        checkpoints = self._checkpoints
        frame = generation.submission(now, checkpoint_folder=checkpoints.path, checkpoint_bytes=checkpoints.max_bytes)
        generation.location.enter(device, len(generation.tokens))
        generation.timing.note_submit(now)
        self._send(device, frame)

    def sequences_exported(self, device: str, exported: Exported) -> None:
        """Unassign the sequences that were to move; the next runner continues from their states, or tokens.

        Sequences that are missing in ``exported`` had ended first and sent Ended.
        """
        by_sequence_id = {sequence.sequence_id: sequence for sequence in exported.sequences}
        for generation in self.on_device(device):
            if not generation.location.is_exporting:
                continue
            generation.location.leave()
            sequence = by_sequence_id.get(generation.sequence_id)
            if sequence is not None:
                generation.note_export(sequence)
            if generation.stop is not None:
                self.remove(generation, GenerationOutcome(ClaimState.ENDED, generation.stop.ending))

    def runner_exited(
        self, device: str, reason: str, *, state: StreamState, message: str, is_failure: bool = True
    ) -> None:
        """Unassign every sequence of the runner, to continue after its last token; end those that kill runners.

        ``state`` and ``message`` are reported to their readers. ``is_failure``: the runner was not ended on purpose.
        """
        inside = self.on_device(device)
        culprits = crash_attribution.blame(inside) if is_failure else []
        for generation in inside:
            generation.location.leave()
            if generation in culprits:
                error = f"the model process ended {generation.deaths.total} times while computing this ({reason})"
                self.remove(generation, GenerationOutcome(ClaimState.ENDED, failed("runner_crashed", error)))
            elif generation.stop is not None:
                self.remove(generation, GenerationOutcome(ClaimState.ENDED, generation.stop.ending))
            else:
                self.report(generation, state, reason=message)

    # ---- frames ----

    def handle_step(self, device: str, step: Step, now: float) -> None:
        """Take in the tokens that the runner of the device has emitted."""
        self.meter.add(step)
        for stopped in self.stopping(device):
            stopped.n_steps += 1
        entries: list[tuple[ActiveGeneration, TokenEntry]] = []
        for emission in step.emissions:
            generation = self._of_sequence(device, emission.sequence_id)
            if generation is not None:
                entries.append((generation, generation.add_token(emission, device, now)))
                crash_attribution.clear(generation)
                self.n_tokens += 1
        self._sink(entries)

    def handle_frame(
        self, device: str, frame: Deferred | PrefillProgress | Checkpointed | Ended | Rejected, now: float
    ) -> None:
        generation = self._of_sequence(device, frame.sequence_id)
        if generation is None:
            if isinstance(frame, Checkpointed):
                Path(frame.path).unlink(missing_ok=True)
            return
        match frame:
            case Deferred(reason=reason):
                generation.prefill.note_deferred()
                self.report(generation, StreamState.QUEUED, reason=reason)
            case PrefillProgress(n_done=n_done, n_total=n_total, n_cached=n_cached):
                progress = generation.prefill.note(n_done, n_total, now)
                if progress is not None:
                    tokens = PromptTokens(n_done, n_total, n_cached)
                    self.report(generation, StreamState.PREFILL, progress=progress, prompt=tokens)
            case Checkpointed(path=path, n_cached=n_cached):
                self._checkpoints.replace(generation, path)
                generation.timing.note_cached(n_cached)
            case Ended():
                self.remove(generation, _outcome(generation, frame))
            case Rejected(code=code, message=message):
                self.remove(generation, GenerationOutcome(ClaimState.ENDED, failed(code, message)))

    def _of_sequence(self, device: str, sequence_id: str) -> ActiveGeneration | None:
        """Return the generation of this sequence; None once it was removed or has moved to another runner."""
        generation = self.by_id.get(UUID(sequence_id.partition("/")[0]))
        if generation is None or generation.sequence_id != sequence_id or generation.device != device:
            return None
        return generation

    def report(
        self,
        generation: ActiveGeneration,
        state: StreamState,
        *,
        progress: float | None = None,
        reason: str | None = None,
        prompt: PromptTokens | None = None,
    ) -> None:
        """Write a status entry to the log of the generation."""
        index = len(generation.tokens)
        entry = StatusEntry(index=index, state=state, progress=progress, reason=reason, prompt=prompt)
        self._sink([(generation, entry)])


def _outcome(generation: ActiveGeneration, frame: Ended) -> GenerationOutcome:
    finish_reason = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(frame.reason)
    if finish_reason is not None:
        # Also when a cancel was on its way: the answer was complete before it arrived.
        ending = Ending(Status.COMPLETE, finish_reason)
    elif generation.stop is not None:
        ending = generation.stop.ending
    else:
        ending = TIMED_OUT if frame.reason == "timeout" else CANCELLED
    n_cached = generation.timing.n_cached
    return GenerationOutcome(
        ClaimState.ENDED,
        ending,
        FinalText(storable(frame.text), frame.n_kept, storable(frame.thought)),
        n_cached=frame.n_cached if n_cached is None else n_cached,
        timings=generation.timing.report(prefill_ms=frame.prefill_ms, decode_ms=frame.decode_ms),
    )
