"""The lives this worker computes: taken, stopped, their tokens written down, let go. Knows no lease and starts nothing.

Each is in the runner of one device, or in none and waits for one, with a state to go on from if it has moved.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from inference.dispatch import crash_attribution
from inference.dispatch.events import Sink
from inference.dispatch.generation_state import Fate, Live, Outcome
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
from inference.enums import FinishReason, Status
from inference.monitoring.engine_metrics import StepMeter
from inference.queue.results import CANCELLED, TIMED_OUT, Ending, FinalText, failed, storable
from inference.token_stream.entries import StatusEntry, TokenEntry

log = logging.getLogger(__name__)

PROGRESS_SECS = 0.25  # at most one status of a sequence in this time


class Roster:
    """``send`` hands a frame to the runner of a device; ``lives`` is by generation, in order of arrival."""

    def __init__(self, sink: Sink, send: Callable[[str, Frame], None]) -> None:
        self.lives: dict[UUID, Live] = {}
        self.n_tokens = 0  # given out since the start
        self.n_ended = 0
        self.meter = StepMeter()
        self._ended_sessions: list[str] = []
        self._sink = sink
        self._send = send

    def on(self, device: str) -> list[Live]:
        return [live for live in self.lives.values() if live.device == device]

    def waiting(self) -> list[Live]:
        return [live for live in self.lives.values() if live.device is None]

    def take_ended_sessions(self) -> list[str]:
        """Sessions of answers that have ended since the last call."""
        ended, self._ended_sessions = self._ended_sessions, []
        return ended

    # ---- coming and going ----

    def take(self, live: Live, now: float) -> None:
        live.added_at = now
        former = self.lives.get(live.generation_id)
        if former is not None:
            # Taken from us while we were suspended or the database was away, and claimed by us again.
            self.let_go(former, Outcome(Fate.LOST))
        self.lives[live.generation_id] = live

    def stop_one(self, live: Live, ending: Ending | None, now: float) -> None:
        """``ending`` None: the claim is lost."""
        if ending is None:
            self.let_go(live, Outcome(Fate.LOST))
        elif live.device is None:
            self.let_go(live, Outcome(Fate.ENDED, ending))
        elif live.stopping is None:
            live.stopping, live.stop_sent_at = ending, now
            self._send(live.device, Cancel(live.sequence_id))

    def let_go(self, live: Live, outcome: Outcome) -> None:
        del self.lives[live.generation_id]
        if outcome.fate is Fate.ENDED:
            self.n_ended += 1
            self._ended_sessions += [live.session_id] if live.session_id else []
        if live.device is not None and outcome.final_text is None:
            self._send(live.device, Cancel(live.sequence_id))  # to one that has ended by itself this says nothing
        if live.state_path:
            Path(live.state_path).unlink(missing_ok=True)
        live.end(outcome)

    def submit(self, live: Live, device: str, now: float) -> None:
        """Give it to the runner of the device, with the state it has from a former one."""
        live.device, live.n_at_submit = device, len(live.tokens)
        live.submitted_at = live.submitted_at or now
        frame = live.submission(now)
        live.state_path = ""
        self._send(device, frame)

    def has_left(self, device: str, exported: Exported) -> None:
        """Those that were to move are in no runner; whoever takes them goes on from their states, or tokens."""
        given = {each.sequence_id: each for each in exported.sequences}
        for live in self.on(device):
            if not live.is_leaving:
                continue
            live.device, live.is_leaving = None, False
            found = given.get(live.sequence_id)
            if found is not None:
                live.carry(found)
            if live.stopping is not None:
                self.let_go(live, Outcome(Fate.ENDED, live.stopping))

    def runner_died(self, device: str, reason: str, *, state: str, told: str, is_failure: bool = True) -> None:
        """Every live sequence goes on elsewhere from its last token, but for the one that kills runners.

        ``is_failure``: nobody here ended that runner on purpose.
        """
        inside = self.on(device)
        culprits = crash_attribution.blame(inside) if is_failure else []
        for live in inside:
            live.device, live.is_leaving = None, False
            if live in culprits:
                message = f"the model process ended {live.total_blames} times while computing this ({reason})"
                self.let_go(live, Outcome(Fate.ENDED, failed("runner_crashed", message)))
            elif live.stopping is not None:
                self.let_go(live, Outcome(Fate.ENDED, live.stopping))
            else:
                self.say(live, state, reason=told)

    # ---- frames ----

    def handle(self, device: str, frame: Step | Deferred | PrefillProgress | Ended | Rejected, now: float) -> None:
        if isinstance(frame, Step):
            self.meter.add(frame)
            entries = [self._token_came(device, emission, now) for emission in frame.emissions]
            self._sink([entry for entry in entries if entry is not None])
            return
        live = self._of_sequence(device, frame.sequence_id)
        if live is None:
            return
        match frame:
            case Deferred(reason=reason):
                live.last_progress_at = 0.0  # that it goes on again is told at once
                self.say(live, "queued", reason=reason)
            case PrefillProgress(n_done=n_done, n_total=n_total):
                self._progress_came(live, n_done, n_total, now)
            case Ended():
                self.let_go(live, _outcome(live, frame))
            case Rejected(code=code, message=message):
                self.let_go(live, Outcome(Fate.ENDED, failed(code, message)))

    def _of_sequence(self, device: str, sequence_id: str) -> Live | None:
        """The live with this sequence; None for one that was let go, or has moved, while the runner still had it."""
        live = self.lives.get(UUID(sequence_id.partition("/")[0]))
        return live if live is not None and live.sequence_id == sequence_id and live.device == device else None

    def _token_came(self, device: str, emission: Emission, now: float) -> tuple[Live, TokenEntry] | None:
        live = self._of_sequence(device, emission.sequence_id)
        if live is None:
            return None
        if emission.index != len(live.tokens) + 1:
            raise RuntimeError(f"token {emission.index} of {live.sequence_id} came after {len(live.tokens)}")
        live.note_token(now)
        token = TokenEntry(index=emission.index, token=emission.token, text=storable(emission.text), device=device)
        live.tokens.append(token)
        crash_attribution.clear(live)
        self.n_tokens += 1
        return live, token

    def _progress_came(self, live: Live, n_done: int, n_total: int, now: float) -> None:
        live.n_read = n_done
        progress = n_done / max(1, n_total)
        if now - live.last_progress_at >= PROGRESS_SECS or progress >= 1.0:
            live.last_progress_at = now
            self.say(live, "prefill", progress=round(progress, 3))

    def say(self, live: Live, state: str, *, progress: float | None = None, reason: str | None = None) -> None:
        self._sink([(live, StatusEntry(index=len(live.tokens), state=state, progress=progress, reason=reason))])


def _outcome(live: Live, frame: Ended) -> Outcome:
    natural = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(frame.reason)
    # An answer that ended by itself before the cancel reached it is complete.
    stopped = live.stopping or (TIMED_OUT if frame.reason == "timeout" else CANCELLED)
    return Outcome(
        Fate.ENDED,
        Ending(Status.COMPLETE, natural) if natural else stopped,
        FinalText(storable(frame.text), frame.n_kept),
        n_cached=frame.n_cached if live.n_cached is None else live.n_cached,
        timings=live.timings(prefill_ms=frame.prefill_ms, decode_ms=frame.decode_ms),
    )
