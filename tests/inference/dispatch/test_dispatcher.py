"""The placement's bookkeeping, event by event: work given out, tokens taken in, runners that die or hang."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import msgspec
import pytest

from inference.dispatch import Dispatcher
from inference.dispatch.event_loop import STOP_PATIENCE_SECS, STOP_PATIENCE_STEPS
from inference.dispatch.events import AddGeneration, Event, ReleaseAll, Shutdown, StopGeneration
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, GenerationOutcome
from inference.dispatch.runner_launcher import FrameReceived, RunnerExited, RunnerStarted, RunnerStartFailed
from inference.dispatch.runner_slot import RUNNER_STOP_SECS, SILENCE_PATIENCE_SECS
from inference.engine.protocol.frames import Alive, Deferred, FromRunner, PrefillProgress, Ready, Rejected
from inference.enums import FinishReason, Status
from inference.queue.results import CANCELLED, TIMED_OUT
from inference.token_stream.entries import AnyEntry, StatusEntry, TokenEntry
from tests.inference.making import PARAMS, tokens
from tests.inference.stub_runner import READY, StubRunner, ended, make_stub, step


@dataclass
class DispatchHarness:
    """A placement moved by hand, with a clock that stands still."""

    now: float = 100.0
    number: int = 0
    runner: StubRunner = field(default_factory=StubRunner)
    logged: list[tuple[ActiveGeneration, AnyEntry]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(make_stub, self.logged.extend, clock=lambda: self.now)
        self.do()  # orders the first runner

    def do(self, *events: Event) -> bool:
        return self.dispatcher.step(events)

    def wait(self, secs: float) -> None:
        """The clock goes on, looked at every half second."""
        for _ in range(round(secs * 2)):
            self.now += 0.5
            self.do()

    def start(self) -> StubRunner:
        """The runner that was ordered is ready."""
        self.number += 1
        self.runner = StubRunner(pid=1000 + self.number)
        self.do(RunnerStarted(self.number, self.runner, READY))
        return self.runner

    def frames(self, *frames: FromRunner) -> None:
        self.do(*[FrameReceived(self.number, frame) for frame in frames])

    def die(self, reason: str = "killed by SIGABRT") -> None:
        self.do(RunnerExited(self.number, reason))

    def add(self, *generations: ActiveGeneration) -> None:
        self.do(*[AddGeneration(generation) for generation in generations])

    def texts(self, generation: ActiveGeneration) -> str:
        return "".join(entry.text for one, entry in self.logged if one is generation and isinstance(entry, TokenEntry))

    def states(self, generation: ActiveGeneration) -> list[str]:
        return [entry.state for one, entry in self.logged if one is generation and isinstance(entry, StatusEntry)]


def new_generation(*, emitted: Sequence[TokenEntry] = (), deadline: float | None = None) -> ActiveGeneration:
    generation = ActiveGeneration(uuid4(), 1, [1, 2, 3], PARAMS, 1, deadline)
    generation.tokens = list(emitted)
    return generation


def outcome_of(generation: ActiveGeneration) -> GenerationOutcome:
    outcome = generation.wait(0)
    assert outcome is not None
    return outcome


def is_over(generation: ActiveGeneration) -> bool:
    return generation.wait(0) is not None


@pytest.fixture
def bench() -> DispatchHarness:
    return DispatchHarness()


def test_work_waits_for_the_model_and_says_so(bench: DispatchHarness) -> None:
    generation = new_generation()
    bench.add(generation)
    assert bench.states(generation) == ["loading"]
    runner = bench.start()
    assert [submission.sequence_id for submission in runner.submissions] == [generation.sequence_id]
    assert bench.states(generation) == ["loading", "prefill"]


def test_answers_with_a_grammar_are_submitted_last(bench: DispatchHarness) -> None:
    structured = new_generation()
    structured.params = msgspec.structs.replace(PARAMS, grammar="{}")
    plain = new_generation()
    bench.add(structured, plain)
    runner = bench.start()
    assert [frame.sequence_id for frame in runner.submissions] == [plain.sequence_id, structured.sequence_id]


def test_tokens_are_logged_and_the_end_is_the_outcome(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.frames(step((generation.sequence_id, 1, "H"), (generation.sequence_id, 2, "i")))
    bench.now += 2
    bench.frames(ended(generation.sequence_id, "length", text="!", n_kept=2))
    outcome = outcome_of(generation)
    assert bench.texts(generation) == "Hi"
    assert outcome.ending is not None
    assert (outcome.ending.status, outcome.ending.finish_reason) == (Status.COMPLETE, FinishReason.LENGTH)
    assert outcome.final_text is not None
    assert (outcome.final_text.text, outcome.final_text.n_kept) == ("!", 2)
    assert outcome.timings["prefill"] == 5.0


def test_a_resumed_sequence_is_submitted_with_what_it_has_said(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation = new_generation(emitted=tokens("abc"))
    bench.add(generation)
    assert runner.submissions[0].emitted == [ord(char) for char in "abc"]
    bench.frames(step((generation.sequence_id, 4, "d")))
    assert [token.text for token in generation.tokens] == ["a", "b", "c", "d"]
    assert bench.texts(generation) == "d"


def test_a_nul_character_is_not_passed_on(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.frames(step((generation.sequence_id, 1, "a\0b")))
    assert bench.texts(generation) == "a\N{REPLACEMENT CHARACTER}b"


def test_progress_is_told_now_and_then(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    for n_done in range(10):
        bench.now += 0.05
        bench.frames(PrefillProgress(generation.sequence_id, n_done, 100))
    progress = [
        entry.progress for _, entry in bench.logged if isinstance(entry, StatusEntry) and entry.state == "prefill"
    ]
    assert 2 <= len(progress) <= 4


def test_a_rejected_sequence_fails_alone(bench: DispatchHarness) -> None:
    bench.start()
    bad, good = new_generation(), new_generation()
    bench.add(bad, good)
    bench.frames(Rejected(bad.sequence_id, "context_overflow", "too long"))
    ending = outcome_of(bad).ending
    assert ending is not None
    assert (ending.status, ending.error_code) == (Status.FAILED, "context_overflow")
    assert not is_over(good)


# ---- stopping ----


def test_a_cancel_goes_to_the_runner_and_its_answer_ends_it(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation = new_generation()
    bench.add(generation)
    for _ in range(3):
        bench.do(StopGeneration(generation.generation_id, CANCELLED))
    assert runner.cancelled == [generation.sequence_id]
    assert not is_over(generation)
    bench.frames(step((generation.sequence_id, 1, "x")), ended(generation.sequence_id, "cancelled"))
    assert outcome_of(generation).ending == CANCELLED
    assert bench.texts(generation) == "x"


def test_an_answer_that_was_faster_than_the_cancel_is_complete(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.do(StopGeneration(generation.generation_id, CANCELLED))
    bench.frames(ended(generation.sequence_id, "stop"))
    ending = outcome_of(generation).ending
    assert ending is not None
    assert ending.status is Status.COMPLETE


def test_what_is_not_in_a_runner_is_cancelled_at_once(bench: DispatchHarness) -> None:
    generation = new_generation()
    bench.add(generation)
    bench.do(StopGeneration(generation.generation_id, CANCELLED))
    assert outcome_of(generation).ending == CANCELLED
    assert bench.start().submissions == []


def test_a_deadline_stops_it_in_and_outside_the_runner(bench: DispatchHarness) -> None:
    waiting = new_generation(deadline=bench.now + 1)
    bench.add(waiting)
    bench.now += 1
    bench.do()
    assert outcome_of(waiting).ending == TIMED_OUT
    runner = bench.start()
    running = new_generation(deadline=bench.now + 5)
    bench.add(running)
    bench.now += 4.9
    bench.do()
    assert runner.cancelled == []
    bench.now += 0.2
    bench.do()
    assert runner.cancelled == [running.sequence_id]
    bench.frames(ended(running.sequence_id, "cancelled"))
    assert outcome_of(running).ending == TIMED_OUT


def test_the_runner_knows_the_deadline_too_and_may_be_the_first_to_tell(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation, endless = new_generation(deadline=bench.now + 5), new_generation()
    bench.now += 2
    bench.add(generation, endless)
    assert [submission.timeout_secs for submission in runner.submissions] == [3.0, None]
    bench.frames(ended(generation.sequence_id, "timeout"))
    assert outcome_of(generation).ending == TIMED_OUT
    assert runner.cancelled == []


def test_who_waits_for_room_is_told_why(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.frames(Deferred(generation.sequence_id, "the memory is full"), PrefillProgress(generation.sequence_id, 1, 4))
    assert bench.states(generation)[-2:] == ["queued", "prefill"]
    held = [entry for _, entry in bench.logged if isinstance(entry, StatusEntry) and entry.state == "queued"]
    assert [entry.reason for entry in held] == ["the memory is full"]


def test_steps_are_counted(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.frames(step((generation.sequence_id, 1, "H")), step((generation.sequence_id, 2, "i")))
    assert bench.dispatcher.meter.report().n_decode_tokens == 2


def test_a_lost_claim_is_let_go_at_once_and_its_late_tokens_are_ignored(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.do(StopGeneration(generation.generation_id, None))
    assert outcome_of(generation).claim is ClaimState.LOST
    assert runner.cancelled == [generation.sequence_id]
    bench.frames(step((generation.sequence_id, 1, "late")), ended(generation.sequence_id, "cancelled"))
    assert bench.texts(generation) == ""


def test_frames_of_a_former_claim_do_not_reach_the_present_one(bench: DispatchHarness) -> None:
    bench.start()
    former = new_generation()
    bench.add(former)
    bench.do(StopGeneration(former.generation_id, None))
    again = ActiveGeneration(former.generation_id, 3, [1], PARAMS, 1)
    bench.add(again)
    bench.frames(step((former.sequence_id, 1, "old"), (again.sequence_id, 1, "n")))
    assert bench.texts(again) == "n"


def test_a_row_claimed_here_again_ends_its_former_claim(bench: DispatchHarness) -> None:
    """After a suspension longer than CLAIM_TTL_SECS the loss may not be known yet."""
    runner = bench.start()
    former = new_generation()
    bench.add(former)
    again = ActiveGeneration(former.generation_id, 3, [1], PARAMS, 1)
    bench.add(again)
    assert outcome_of(former).claim is ClaimState.LOST
    assert runner.cancelled == [former.sequence_id]
    bench.do(StopGeneration(former.generation_id, None, former.epoch))  # the late news is not about the present claim
    bench.frames(step((again.sequence_id, 1, "n")))
    assert not is_over(again)
    assert bench.texts(again) == "n"


def test_a_runner_that_is_silent_after_a_cancel_is_killed(bench: DispatchHarness) -> None:
    runner = bench.start()
    stuck, other = new_generation(), new_generation()
    bench.add(stuck, other)
    bench.do(StopGeneration(stuck.generation_id, CANCELLED))
    bench.wait(SILENCE_PATIENCE_SECS + 2)
    assert runner.killed == 1
    bench.die("killed by SIGKILL")
    assert outcome_of(stuck).ending == CANCELLED
    assert not is_over(other)
    assert [one.sequence_id for one in bench.start().submissions] == [other.sequence_id]


def test_a_runner_that_has_work_and_sends_nothing_is_killed(bench: DispatchHarness) -> None:
    runner = bench.start()
    bench.wait(SILENCE_PATIENCE_SECS * 2)
    assert runner.killed == 0  # idle
    bench.add(new_generation())
    bench.wait(SILENCE_PATIENCE_SECS / 2)
    bench.frames(step())
    bench.wait(SILENCE_PATIENCE_SECS - 1)
    assert runner.killed == 0  # it sent something in between
    bench.wait(2)
    assert runner.killed == 1


def test_a_runner_in_a_long_step_is_left_alone_by_five_cancels_and_a_deadline(bench: DispatchHarness) -> None:
    runner = bench.start()
    other, late = new_generation(), new_generation(deadline=bench.now + 70)
    stopped = [new_generation() for _ in range(5)]
    bench.add(other, late, *stopped)
    for generation in stopped:
        bench.do(StopGeneration(generation.generation_id, CANCELLED))
        for _ in range(20):
            bench.wait(1)
            bench.frames(Alive())
    assert runner.killed == 0
    assert set(runner.cancelled) == {generation.sequence_id for generation in (late, *stopped)}
    bench.frames(*[ended(generation.sequence_id, "cancelled") for generation in (late, *stopped)])
    assert [outcome_of(generation).ending for generation in (late, *stopped)] == [TIMED_OUT] + [CANCELLED] * 5
    assert not is_over(other)


def test_a_runner_that_computes_on_after_a_cancel_is_killed(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation, other = new_generation(), new_generation()
    bench.add(generation, other)
    bench.do(StopGeneration(generation.generation_id, CANCELLED))
    for _ in range(STOP_PATIENCE_STEPS):
        assert runner.killed == 0
        bench.frames(step())
    bench.wait(STOP_PATIENCE_SECS - 1)
    assert runner.killed == 0  # steps of before the cancel may arrive after it
    bench.frames(Alive())
    bench.wait(2)
    assert runner.killed == 1


def test_time_in_which_the_worker_itself_was_suspended_is_no_silence(bench: DispatchHarness) -> None:
    runner = bench.start()
    bench.add(new_generation())
    for _ in range(5):
        bench.now += 3600
        bench.do()
    assert runner.killed == 0
    bench.wait(SILENCE_PATIENCE_SECS)
    assert runner.killed == 1


def test_release_hands_everything_back_and_takes_nothing_more(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.do(ReleaseAll())
    assert outcome_of(generation).claim is ClaimState.RELEASED
    assert runner.cancelled == [generation.sequence_id]
    late = new_generation()
    bench.add(late)
    assert outcome_of(late).claim is ClaimState.RELEASED
    assert not bench.do(Shutdown(spare_secs=4.0))
    assert (runner.stopped, runner.stop_secs) == (1, RUNNER_STOP_SECS + 4.0)


# ---- runners that die ----


def test_every_sequence_goes_on_in_the_next_runner(bench: DispatchHarness) -> None:
    bench.start()
    generations = [new_generation() for _ in range(3)]
    bench.add(*generations)
    bench.frames(step(*[(generation.sequence_id, 1, "a") for generation in generations]))
    bench.die()
    assert all(bench.states(generation)[-1] == "loading" for generation in generations)
    runner = bench.start()
    assert {one.sequence_id for one in runner.submissions} == {generation.sequence_id for generation in generations}
    assert all(one.emitted == [ord("a")] for one in runner.submissions)
    bench.frames(step(*[(generation.sequence_id, 2, "b") for generation in generations]))
    assert [bench.texts(generation) for generation in generations] == ["ab"] * 3


def test_a_frame_that_breaks_the_count_ends_the_runner(bench: DispatchHarness) -> None:
    runner = bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.frames(step((generation.sequence_id, 5, "x")))
    assert runner.killed == 1
    assert not is_over(generation)
    bench.die()
    assert bench.start().submissions[0].emitted == []


def run_poisoned(
    bench: DispatchHarness, poison: ActiveGeneration, others: list[ActiveGeneration], *, poison_at: int
) -> int:
    """Play runners that die whenever they hold ``poison`` and it has ``poison_at`` tokens; return the deaths."""
    deaths = 0
    while not is_over(poison) or not all(map(is_over, others)):
        runner = bench.start()
        assert deaths < 20
        for _ in range(50):
            inside = [
                generation for generation in (*others, poison) if generation.is_in_runner and not is_over(generation)
            ]
            if poison in inside and len(poison.tokens) >= poison_at:
                bench.die()
                deaths += 1
                break
            assert inside or not runner.submissions or all(map(is_over, (*others, poison)))
            bench.frames(step(*[(generation.sequence_id, len(generation.tokens) + 1, "x") for generation in inside]))
            bench.frames(*[ended(generation.sequence_id) for generation in inside if len(generation.tokens) >= 6])
            if is_over(poison) and all(map(is_over, others)):
                break
    return deaths


@pytest.mark.parametrize("poison_at", [0, 3])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_the_sequence_that_kills_runners_fails_alone(bench: DispatchHarness, poison_at: int, position: int) -> None:
    others = [new_generation() for _ in range(3)]
    poison = new_generation()
    everyone = list(others)
    everyone.insert(position, poison)
    bench.add(*everyone)
    deaths = run_poisoned(bench, poison, others, poison_at=poison_at)
    ending = outcome_of(poison).ending
    assert ending is not None
    assert (ending.status, ending.error_code) == (Status.FAILED, "runner_crashed")
    assert deaths <= 6
    for generation in others:
        end = outcome_of(generation).ending
        assert end is not None
        assert end.status is Status.COMPLETE
        assert bench.texts(generation) == "x" * 6


def test_two_poisoned_sequences_both_fail_and_the_rest_completes(bench: DispatchHarness) -> None:
    first, second, good = new_generation(), new_generation(), new_generation()
    bench.add(first, good, second)
    for _ in range(12):
        runner = bench.start()
        while not any(generation.is_in_runner and not is_over(generation) for generation in (first, second)):
            inside = [generation for generation in (good,) if generation.is_in_runner and not is_over(generation)]
            if not inside:
                break
            bench.frames(step(*[(generation.sequence_id, len(generation.tokens) + 1, "x") for generation in inside]))
            bench.frames(*[ended(generation.sequence_id) for generation in inside if len(generation.tokens) >= 3])
        if all(map(is_over, (first, second, good))):
            break
        assert runner.submissions
        bench.die()
    assert [outcome_of(generation).ending.error_code for generation in (first, second)] == ["runner_crashed"] * 2  # type: ignore[union-attr]
    assert outcome_of(good).ending.status is Status.COMPLETE  # type: ignore[union-attr]


def test_a_sequence_that_clears_itself_each_time_is_given_up_in_the_end(bench: DispatchHarness) -> None:
    generation = new_generation()
    bench.add(generation)
    deaths = 0
    while not is_over(generation):
        bench.start()
        bench.frames(step((generation.sequence_id, len(generation.tokens) + 1, "x")))
        bench.die()
        deaths += 1
        assert deaths <= 10
    ending = outcome_of(generation).ending
    assert ending is not None
    assert ending.error_code == "runner_crashed"


def test_newcomers_wait_while_a_suspect_is_tried(bench: DispatchHarness) -> None:
    suspect = new_generation()
    bench.add(suspect)
    for _ in range(2):
        bench.start()
        bench.die()
    runner = bench.start()
    newcomer = new_generation()
    bench.add(newcomer)
    assert [one.sequence_id for one in runner.submissions] == [suspect.sequence_id]
    bench.frames(step((suspect.sequence_id, 1, "x")))
    assert [one.sequence_id for one in runner.submissions] == [suspect.sequence_id, newcomer.sequence_id]


# ---- runners that do not start ----


def fail_start(bench: DispatchHarness) -> None:
    bench.number += 1
    bench.do(RunnerStartFailed(bench.number, "model_file", "the file is truncated"))


def test_a_start_that_fails_is_tried_again_later(bench: DispatchHarness) -> None:
    generation = new_generation()
    bench.add(generation)
    fail_start(bench)
    assert not is_over(generation)
    bench.now += 0.5
    bench.do()
    assert bench.dispatcher._loop.cpu._number == 1
    bench.now += 0.6
    bench.do()
    assert bench.dispatcher._loop.cpu._number == 2
    assert [one.sequence_id for one in bench.start().submissions] == [generation.sequence_id]


def test_after_three_failed_starts_what_waits_is_told(bench: DispatchHarness) -> None:
    generation = new_generation()
    bench.add(generation)
    for _ in range(3):
        assert not is_over(generation)
        fail_start(bench)
        bench.now += 60
        bench.do()
    ending = outcome_of(generation).ending
    assert ending is not None
    assert (ending.status, ending.error_code) == (Status.FAILED, "model_unavailable")
    assert "truncated" in ending.error_message


def test_a_runner_whose_end_is_told_before_its_start_is_not_used(bench: DispatchHarness) -> None:
    generation = new_generation()
    bench.add(generation)
    bench.number = 1
    dead = StubRunner()
    bench.do(RunnerExited(1, "killed by SIGSEGV"), RunnerStarted(1, dead, READY))
    assert dead.submissions == []
    assert bench.dispatcher.ready is None
    bench.now += 2
    bench.do()
    assert [one.sequence_id for one in bench.start().submissions] == [generation.sequence_id]


def test_events_of_a_former_runner_are_ignored(bench: DispatchHarness) -> None:
    bench.start()
    generation = new_generation()
    bench.add(generation)
    bench.die()
    bench.start()
    bench.do(FrameReceived(1, step((generation.sequence_id, 1, "x"))), RunnerExited(1, "again"))
    assert bench.dispatcher.ready is not None
    assert generation.tokens == []


def test_what_comes_after_the_end_is_given_back() -> None:
    """A claim that waited for the database may come when the worker has stopped; its thread must not wait for ever."""
    dispatcher = Dispatcher(make_stub, lambda _: None)
    dispatcher.begin()
    dispatcher.end(5.0)
    late = new_generation()
    dispatcher.add(late)
    outcome = late.wait(2.0)
    assert outcome is not None
    assert outcome.claim is ClaimState.RELEASED


def test_a_runner_that_is_told_to_stop_outlives_nothing_it_needs() -> None:
    """The kernel kills a runner with the thread that started it: that thread ends after the runner has saved."""
    starters: list[threading.Thread] = []
    lived_through: list[bool] = []

    class SavingRunner(StubRunner):
        def start(self) -> Ready:
            starters.append(threading.current_thread())
            return READY

        def stop(self, timeout_secs: float) -> None:
            starters[0].join(0.3)  # the time of saving
            lived_through.append(starters[0].is_alive())

    dispatcher = Dispatcher(lambda on_frame, on_exit: SavingRunner(), lambda _: None)
    dispatcher.begin()
    deadline = time.monotonic() + 10.0
    while dispatcher.ready is None and time.monotonic() < deadline:
        time.sleep(0.01)
    dispatcher.end(5.0)
    assert lived_through == [True]
    assert not starters[0].is_alive(), "and no longer than that"
