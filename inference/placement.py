"""Which runner computes which live generation: gives work out, takes tokens in, survives the runner's death.

One thread owns all state here; everybody else posts events. Knows no rows, no Redis and no Celery.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from inference import suspects
from inference.engine.frames import Cancel, Emission, Ended, FromRunner, Held, Progress, Ready, Rejected, Step
from inference.launcher import FrameCame, Launcher, LaunchEvent, MakeRunner, Runner, RunnerGone, Started, StartFailed
from inference.lives import Fate, Live, Outcome
from inference.results import CANCELLED, TIMED_OUT, Ending, Flushed, failed, storable
from inference.states import FinishReason, Status
from inference.step_meter import StepMeter
from inference.token_log_entries import AnyEntry, Token, Waiting

log = logging.getLogger(__name__)

TICK_SECS = 0.1  # how late a deadline may be noticed
PROGRESS_SECS = 0.25  # at most one status of a sequence in this time
STOP_PATIENCE_SECS = 10.0  # a runner answers a cancel within one step; one that does not is stuck
SILENCE_PATIENCE_SECS = 180.0  # no step of any model takes so long
STARTS_BEFORE_FAILING = 3
LONGEST_BACKOFF_SECS = 30.0
RUNNER_STOP_SECS = 2.0


@dataclass(frozen=True)
class Add:
    live: Live


@dataclass(frozen=True)
class StopOne:
    """``ending`` None means that the claim with ``epoch`` is lost; without an epoch it is about any claim."""

    generation_id: UUID
    ending: Ending | None
    epoch: int | None = None


@dataclass(frozen=True)
class ReleaseAll:
    """This worker stops: hand back whatever lives, and take nothing more."""


@dataclass(frozen=True)
class Quit:
    """The last event."""


Event = Add | StopOne | ReleaseAll | Quit | LaunchEvent
Sink = Callable[[Sequence[tuple[Live, AnyEntry]]], None]  # entries of one step, in order


class Placement:
    """Public methods may be called from any thread; ``sink`` is called from the placement's own."""

    def __init__(self, make_runner: MakeRunner, sink: Sink, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.ready: Ready | None = None  # what the runner said of itself; None while there is none
        self.runner_pid: int | None = None
        self.n_tokens = 0  # given out since the start
        self.meter = StepMeter()
        self._sink = sink
        self._clock = clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._launcher = Launcher(make_runner, self._events.put)
        self._lives: dict[UUID, Live] = {}
        self._runner: Runner | None = None
        self._number = 0
        self._is_starting = False
        self._start_at = 0.0
        self._failed_starts = 0
        self._died_early: str | None = None
        self._is_killed = False
        self._heard_at = 0.0
        self._is_releasing = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="placement", daemon=True)

    # ---- for any thread ----

    def begin(self) -> None:
        """Start the runner; returns at once."""
        self._launcher.begin()
        self._thread.start()

    def add(self, live: Live) -> None:
        """Compute a generation; its ``wait`` returns when that is over."""
        self._events.put(Add(live))
        if self._is_over.is_set():  # nobody takes it any more
            self._release_untaken()

    def cancel(self, generation_id: UUID) -> None:
        """Stop one as cancelled, if it is here."""
        self._events.put(StopOne(generation_id, CANCELLED))

    def drop(self, generation_id: UUID, epoch: int) -> None:
        """Stop one whose claim is lost, if it is here."""
        self._events.put(StopOne(generation_id, None, epoch))

    def release_all(self) -> None:
        self._events.put(ReleaseAll())

    def end(self, timeout_secs: float) -> None:
        """Stop the runner and the threads; what still lives is released."""
        self._events.put(ReleaseAll())
        self._events.put(Quit())
        # The launcher's thread last: with it the kernel kills the runner, which is saving what it has computed.
        self._thread.join(timeout_secs)
        self._launcher.end(timeout_secs)

    # ---- the placement's thread ----

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            events = self._next_events()
            try:
                goes_on = self.step(events)
            except Exception:
                log.exception("giving out work failed")
                self._kill_runner("work could not be given out")
                time.sleep(1.0)  # whatever it was, it may come again at once
        self._is_over.set()
        self._release_untaken()

    def _release_untaken(self) -> None:
        """Give back what was added when nobody looked any more; both who ends and who adds late may be the last."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, Add):
                    event.live.end(Outcome(Fate.RELEASED))

    def _next_events(self) -> list[Event]:
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=TICK_SECS))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def step(self, events: Sequence[Event]) -> bool:
        """Take in events, look at the clock, give out work; False after Quit."""
        now = self._clock()
        for event in events:
            if isinstance(event, Quit):
                self._end_runner()
                return False
            try:
                self._handle(event, now)
            except Exception:
                # What the runner holds and what we believe may differ now: end it, so that all is replayed whole.
                log.exception("%s was not handled", type(event).__name__)
                self._kill_runner("an event of it was not handled")
        self._look_at_clock(now)
        self._give_work(now)
        return True

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case Add(live):
                self._take(live, now)
            case StopOne(generation_id, ending, epoch):
                held = self._lives.get(generation_id)
                if held is not None and epoch in (None, held.epoch):
                    self._stop_one(held, ending, now)
            case ReleaseAll():
                self._is_releasing = True
                for live in list(self._lives.values()):
                    self._let_go(live, Outcome(Fate.RELEASED))
            case Started() | StartFailed() | FrameCame() | RunnerGone() if event.number == self._number:
                self._handle_runner(event, now)
            case _:
                log.debug("an event of a former runner: %s", type(event).__name__)

    def _take(self, live: Live, now: float) -> None:
        live.added_at = now
        if self._is_releasing:
            live.end(Outcome(Fate.RELEASED))
            return
        former = self._lives.get(live.generation_id)
        if former is not None:
            # Taken from us while we were suspended or the database was away, and claimed by us again.
            self._let_go(former, Outcome(Fate.LOST))
        self._lives[live.generation_id] = live
        if self._runner is None:
            self._say(live, "loading")

    def _stop_one(self, live: Live, ending: Ending | None, now: float) -> None:
        if ending is None:
            self._let_go(live, Outcome(Fate.LOST))
        elif not live.is_in_runner:
            self._let_go(live, Outcome(Fate.ENDED, ending))
        elif live.stopping is None:
            live.stopping, live.stop_sent_at = ending, now
            self._send_cancel(live)

    # ---- the runner ----

    def _handle_runner(self, event: LaunchEvent, now: float) -> None:
        match event:
            case Started(runner=runner, ready=ready):
                self._runner_started(runner, ready, now)
            case StartFailed(code=code, message=message):
                self._runner_did_not_start(code, message, now)
            case FrameCame(frame=frame):
                self._heard_at = now
                self._handle_frame(frame, now)
            case RunnerGone(reason=reason):
                if self._is_starting:  # its end was told before its start
                    self._died_early = reason
                else:
                    self._runner_died(reason, now)

    def _runner_started(self, runner: Runner, ready: Ready, now: float) -> None:
        if self._died_early is not None:
            self._runner_did_not_start("runner_died", self._died_early, now)
            return
        self._runner, self.ready, self.runner_pid = runner, ready, runner.pid
        self._is_starting, self._is_killed, self._failed_starts, self._heard_at = False, False, 0, now
        log.info("the model %s is ready after %.0f ms", ready.model_name, ready.load_ms + ready.warmup_ms)

    def _runner_did_not_start(self, code: str, message: str, now: float) -> None:
        self._is_starting = False
        self._failed_starts += 1
        self._start_at = now + min(2.0 ** (self._failed_starts - 1), LONGEST_BACKOFF_SECS)
        log.error("the model did not start (%s): %s; next try in %.0f s", code, message, self._start_at - now)
        if self._failed_starts >= STARTS_BEFORE_FAILING:
            for live in list(self._lives.values()):
                self._let_go(live, Outcome(Fate.ENDED, failed("model_unavailable", message)))

    def _runner_died(self, reason: str, now: float) -> None:
        """Every live sequence goes on in the next runner from its last token, but for the one that kills runners."""
        log.error("the runner with %d sequences ended: %s", sum(x.is_in_runner for x in self._lives.values()), reason)
        self._runner, self.ready, self.runner_pid = None, None, None
        self._start_at = now
        culprits = suspects.blame(self._lives.values())
        for live in list(self._lives.values()):
            live.is_in_runner = False
            if live in culprits:
                message = f"the model process ended {live.total_blames} times while computing this ({reason})"
                self._let_go(live, Outcome(Fate.ENDED, failed("runner_crashed", message)))
            elif live.stopping is not None:
                self._let_go(live, Outcome(Fate.ENDED, live.stopping))
            else:
                self._say(live, "loading", reason="the model process ended and is being started again")

    def _end_runner(self) -> None:
        if self._runner is not None:
            self._runner.stop(RUNNER_STOP_SECS)

    # ---- frames ----

    def _handle_frame(self, frame: FromRunner, now: float) -> None:
        match frame:
            case Step(emissions=emissions):
                self.meter.add(frame)
                entries = [self._token_came(emission, now) for emission in emissions]
                self._sink([entry for entry in entries if entry is not None])
            case Held(sequence_id, reason):
                live = self._of_sequence(sequence_id)
                if live is not None:
                    live.last_progress_at = 0.0  # that it goes on again is told at once
                    self._say(live, "queued", reason=reason)
            case Progress(sequence_id, n_done, n_total):
                self._progress_came(sequence_id, n_done / max(1, n_total), now)
            case Ended(sequence_id=sequence_id):
                live = self._of_sequence(sequence_id)
                if live is not None:
                    self._let_go(live, self._outcome(live, frame))
            case Rejected(sequence_id, code, message):
                live = self._of_sequence(sequence_id)
                if live is not None:
                    self._let_go(live, Outcome(Fate.ENDED, failed(code, message)))
            case _:
                log.warning("the runner said %s in the middle of work", type(frame).__name__)

    def _of_sequence(self, sequence_id: str) -> Live | None:
        """The live with this sequence; None for one that was let go while the runner still had it."""
        live = self._lives.get(UUID(sequence_id.partition("/")[0]))
        return live if live is not None and live.sequence_id == sequence_id and live.is_in_runner else None

    def _token_came(self, emission: Emission, now: float) -> tuple[Live, Token] | None:
        live = self._of_sequence(emission.sequence_id)
        if live is None:
            return None
        if emission.index != len(live.tokens) + 1:
            raise RuntimeError(f"token {emission.index} of {live.sequence_id} came after {len(live.tokens)}")
        if live.first_token_at is None:
            live.first_token_at = now
        token = Token(index=emission.index, token=emission.token, text=storable(emission.text))
        live.tokens.append(token)
        suspects.clear(live)
        self.n_tokens += 1
        return live, token

    def _progress_came(self, sequence_id: str, progress: float, now: float) -> None:
        live = self._of_sequence(sequence_id)
        if live is not None and (now - live.last_progress_at >= PROGRESS_SECS or progress >= 1.0):
            live.last_progress_at = now
            self._say(live, "prefill", progress=round(progress, 3))

    def _outcome(self, live: Live, frame: Ended) -> Outcome:
        natural = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}.get(frame.reason)
        # An answer that ended by itself before the cancel reached it is complete.
        stopped = live.stopping or (TIMED_OUT if frame.reason == "timeout" else CANCELLED)
        ending = Ending(Status.COMPLETE, natural) if natural else stopped
        timings = {"prefill": frame.prefill_ms, "decode": frame.decode_ms, **_waits(live)}
        return Outcome(
            Fate.ENDED, ending, Flushed(storable(frame.text), frame.n_kept), n_cached=frame.n_cached, timings=timings
        )

    # ---- giving work out and letting it go ----

    def _look_at_clock(self, now: float) -> None:
        for live in list(self._lives.values()):
            if live.deadline is not None and now >= live.deadline:
                self._stop_one(live, TIMED_OUT, now)
            if live.stop_sent_at is not None and now - live.stop_sent_at > STOP_PATIENCE_SECS:
                self._kill_runner("it does not answer a cancel")
        is_busy = any(live.is_in_runner for live in self._lives.values())
        if is_busy and now - self._heard_at > SILENCE_PATIENCE_SECS:
            self._kill_runner(f"it has said nothing for {SILENCE_PATIENCE_SECS:.0f} s")

    def _kill_runner(self, why: str) -> None:
        """Its death brings everything else about: RunnerGone, blame, a new runner."""
        if self._runner is not None and not self._is_killed:
            self._is_killed = True
            log.error("killing the runner: %s", why)
            self._runner.kill()

    def _give_work(self, now: float) -> None:
        if self._runner is None:
            if not self._is_starting and not self._is_releasing and now >= self._start_at:
                self._number += 1
                self._is_starting, self._died_early = True, None
                self._launcher.launch(self._number)
            return
        if not any(live.is_in_runner for live in self._lives.values()):
            self._heard_at = now  # an idle runner has nothing to say
        for live in suspects.admissible(self._lives.values()):
            live.is_in_runner, live.n_at_submit = True, len(live.tokens)
            live.submitted_at = live.submitted_at or now
            self._say(live, "prefill", progress=0.0)
            self._runner.send(live.submission(now))

    def _let_go(self, live: Live, outcome: Outcome) -> None:
        del self._lives[live.generation_id]
        if live.is_in_runner and outcome.flushed is None:
            self._send_cancel(live)  # to one that has ended by itself this says nothing
        live.end(outcome)

    def _send_cancel(self, live: Live) -> None:
        if self._runner is not None:
            self._runner.send(Cancel(live.sequence_id))

    def _say(self, live: Live, state: str, *, progress: float | None = None, reason: str | None = None) -> None:
        self._sink([(live, Waiting(index=len(live.tokens), state=state, progress=progress, reason=reason))])


def _waits(live: Live) -> dict[str, float]:
    """How long the model was waited for, and the first token after that, as seen from here."""
    waits: dict[str, float] = {}
    if live.added_at is not None and live.submitted_at is not None:
        waits["load"] = (live.submitted_at - live.added_at) * 1000
        if live.first_token_at is not None:
            waits["first_token"] = (live.first_token_at - live.submitted_at) * 1000
    return waits
