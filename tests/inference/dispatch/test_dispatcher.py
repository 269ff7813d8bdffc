"""The placement's bookkeeping, event by event: work given out, tokens taken in, runners that die or hang."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from inference.dispatch import Placement
from inference.dispatch.event_loop import STOP_PATIENCE_SECS
from inference.dispatch.events import Add, Event, Quit, ReleaseAll, StopOne
from inference.dispatch.generation_state import Fate, Live, Outcome
from inference.dispatch.runner_launcher import FrameCame, RunnerGone, Started, StartFailed
from inference.dispatch.runner_slot import RUNNER_STOP_SECS, SILENCE_PATIENCE_SECS
from inference.engine.protocol.frames import Deferred, FromRunner, PrefillProgress, Ready, Rejected
from inference.enums import FinishReason, Status
from inference.queue.results import CANCELLED, TIMED_OUT
from inference.token_stream.entries import AnyEntry, StatusEntry, TokenEntry
from tests.inference.making import PARAMS, tokens
from tests.inference.stub_runner import READY, StubRunner, ended, make_stub, step


@dataclass
class Bench:
    """A placement moved by hand, with a clock that stands still."""

    now: float = 100.0
    number: int = 0
    runner: StubRunner = field(default_factory=StubRunner)
    logged: list[tuple[Live, AnyEntry]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.placement = Placement(make_stub, self.logged.extend, clock=lambda: self.now)
        self.do()  # orders the first runner

    def do(self, *events: Event) -> bool:
        return self.placement.step(events)

    def start(self) -> StubRunner:
        """The runner that was ordered is ready."""
        self.number += 1
        self.runner = StubRunner(pid=1000 + self.number)
        self.do(Started(self.number, self.runner, READY))
        return self.runner

    def frames(self, *frames: FromRunner) -> None:
        self.do(*[FrameCame(self.number, frame) for frame in frames])

    def die(self, reason: str = "killed by SIGABRT") -> None:
        self.do(RunnerGone(self.number, reason))

    def add(self, *lives: Live) -> None:
        self.do(*[Add(live) for live in lives])

    def texts(self, live: Live) -> str:
        return "".join(entry.text for one, entry in self.logged if one is live and isinstance(entry, TokenEntry))

    def states(self, live: Live) -> list[str]:
        return [entry.state for one, entry in self.logged if one is live and isinstance(entry, StatusEntry)]


def new_live(*, emitted: Sequence[TokenEntry] = (), deadline: float | None = None) -> Live:
    live = Live(uuid4(), 1, [1, 2, 3], PARAMS, 1, deadline)
    live.tokens = list(emitted)
    return live


def outcome_of(live: Live) -> Outcome:
    outcome = live.wait(0)
    assert outcome is not None
    return outcome


def is_over(live: Live) -> bool:
    return live.wait(0) is not None


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_work_waits_for_the_model_and_says_so(bench: Bench) -> None:
    live = new_live()
    bench.add(live)
    assert bench.states(live) == ["loading"]
    runner = bench.start()
    assert [submission.sequence_id for submission in runner.submissions] == [live.sequence_id]
    assert bench.states(live) == ["loading", "prefill"]


def test_tokens_are_logged_and_the_end_is_the_outcome(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    bench.frames(step((live.sequence_id, 1, "H"), (live.sequence_id, 2, "i")))
    bench.now += 2
    bench.frames(ended(live.sequence_id, "length", text="!", n_kept=2))
    outcome = outcome_of(live)
    assert bench.texts(live) == "Hi"
    assert outcome.ending is not None
    assert (outcome.ending.status, outcome.ending.finish_reason) == (Status.COMPLETE, FinishReason.LENGTH)
    assert outcome.final_text is not None
    assert (outcome.final_text.text, outcome.final_text.n_kept) == ("!", 2)
    assert outcome.timings["prefill"] == 5.0


def test_a_resumed_sequence_is_submitted_with_what_it_has_said(bench: Bench) -> None:
    runner = bench.start()
    live = new_live(emitted=tokens("abc"))
    bench.add(live)
    assert runner.submissions[0].emitted == [ord(char) for char in "abc"]
    bench.frames(step((live.sequence_id, 4, "d")))
    assert [token.text for token in live.tokens] == ["a", "b", "c", "d"]
    assert bench.texts(live) == "d"


def test_a_nul_character_is_not_passed_on(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    bench.frames(step((live.sequence_id, 1, "a\0b")))
    assert bench.texts(live) == "a\N{REPLACEMENT CHARACTER}b"


def test_progress_is_told_now_and_then(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    for n_done in range(10):
        bench.now += 0.05
        bench.frames(PrefillProgress(live.sequence_id, n_done, 100))
    told = [entry.progress for _, entry in bench.logged if isinstance(entry, StatusEntry) and entry.state == "prefill"]
    assert 2 <= len(told) <= 4


def test_a_rejected_sequence_fails_alone(bench: Bench) -> None:
    bench.start()
    bad, good = new_live(), new_live()
    bench.add(bad, good)
    bench.frames(Rejected(bad.sequence_id, "context_overflow", "too long"))
    ending = outcome_of(bad).ending
    assert ending is not None
    assert (ending.status, ending.error_code) == (Status.FAILED, "context_overflow")
    assert not is_over(good)


# ---- stopping ----


def test_a_cancel_goes_to_the_runner_and_its_answer_ends_it(bench: Bench) -> None:
    runner = bench.start()
    live = new_live()
    bench.add(live)
    for _ in range(3):
        bench.do(StopOne(live.generation_id, CANCELLED))
    assert runner.cancelled == [live.sequence_id]
    assert not is_over(live)
    bench.frames(step((live.sequence_id, 1, "x")), ended(live.sequence_id, "cancelled"))
    assert outcome_of(live).ending == CANCELLED
    assert bench.texts(live) == "x"


def test_an_answer_that_was_faster_than_the_cancel_is_complete(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    bench.do(StopOne(live.generation_id, CANCELLED))
    bench.frames(ended(live.sequence_id, "stop"))
    ending = outcome_of(live).ending
    assert ending is not None
    assert ending.status is Status.COMPLETE


def test_what_is_not_in_a_runner_is_cancelled_at_once(bench: Bench) -> None:
    live = new_live()
    bench.add(live)
    bench.do(StopOne(live.generation_id, CANCELLED))
    assert outcome_of(live).ending == CANCELLED
    assert bench.start().submissions == []


def test_a_deadline_stops_it_in_and_outside_the_runner(bench: Bench) -> None:
    waiting = new_live(deadline=bench.now + 1)
    bench.add(waiting)
    bench.now += 1
    bench.do()
    assert outcome_of(waiting).ending == TIMED_OUT
    runner = bench.start()
    running = new_live(deadline=bench.now + 5)
    bench.add(running)
    bench.now += 4.9
    bench.do()
    assert runner.cancelled == []
    bench.now += 0.2
    bench.do()
    assert runner.cancelled == [running.sequence_id]
    bench.frames(ended(running.sequence_id, "cancelled"))
    assert outcome_of(running).ending == TIMED_OUT


def test_the_runner_knows_the_deadline_too_and_may_be_the_first_to_tell(bench: Bench) -> None:
    runner = bench.start()
    live, endless = new_live(deadline=bench.now + 5), new_live()
    bench.now += 2
    bench.add(live, endless)
    assert [submission.timeout_secs for submission in runner.submissions] == [3.0, None]
    bench.frames(ended(live.sequence_id, "timeout"))
    assert outcome_of(live).ending == TIMED_OUT
    assert runner.cancelled == []


def test_who_waits_for_room_is_told_why(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    bench.frames(Deferred(live.sequence_id, "the memory is full"), PrefillProgress(live.sequence_id, 1, 4))
    assert bench.states(live)[-2:] == ["queued", "prefill"]
    held = [entry for _, entry in bench.logged if isinstance(entry, StatusEntry) and entry.state == "queued"]
    assert [entry.reason for entry in held] == ["the memory is full"]


def test_steps_are_counted(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    bench.frames(step((live.sequence_id, 1, "H")), step((live.sequence_id, 2, "i")))
    assert bench.placement.meter.report().n_decode_tokens == 2


def test_a_lost_claim_is_let_go_at_once_and_its_late_tokens_are_ignored(bench: Bench) -> None:
    runner = bench.start()
    live = new_live()
    bench.add(live)
    bench.do(StopOne(live.generation_id, None))
    assert outcome_of(live).fate is Fate.LOST
    assert runner.cancelled == [live.sequence_id]
    bench.frames(step((live.sequence_id, 1, "late")), ended(live.sequence_id, "cancelled"))
    assert bench.texts(live) == ""


def test_frames_of_a_former_claim_do_not_reach_the_present_one(bench: Bench) -> None:
    bench.start()
    former = new_live()
    bench.add(former)
    bench.do(StopOne(former.generation_id, None))
    again = Live(former.generation_id, 3, [1], PARAMS, 1)
    bench.add(again)
    bench.frames(step((former.sequence_id, 1, "old"), (again.sequence_id, 1, "n")))
    assert bench.texts(again) == "n"


def test_a_row_claimed_here_again_ends_its_former_claim(bench: Bench) -> None:
    """After a suspension longer than CLAIM_TTL_SECS nobody may have told us of the loss yet."""
    runner = bench.start()
    former = new_live()
    bench.add(former)
    again = Live(former.generation_id, 3, [1], PARAMS, 1)
    bench.add(again)
    assert outcome_of(former).fate is Fate.LOST
    assert runner.cancelled == [former.sequence_id]
    bench.do(StopOne(former.generation_id, None, former.epoch))  # the late news is not about the present claim
    bench.frames(step((again.sequence_id, 1, "n")))
    assert not is_over(again)
    assert bench.texts(again) == "n"


def test_a_runner_that_does_not_answer_a_cancel_is_killed(bench: Bench) -> None:
    runner = bench.start()
    stuck, other = new_live(), new_live()
    bench.add(stuck, other)
    bench.do(StopOne(stuck.generation_id, CANCELLED))
    bench.now += STOP_PATIENCE_SECS + 0.1
    bench.do()
    bench.do()
    assert runner.killed == 1
    bench.die("killed by SIGKILL")
    assert outcome_of(stuck).ending == CANCELLED
    assert not is_over(other)
    assert [one.sequence_id for one in bench.start().submissions] == [other.sequence_id]


def test_a_runner_that_has_work_and_says_nothing_is_killed(bench: Bench) -> None:
    runner = bench.start()
    bench.now += SILENCE_PATIENCE_SECS * 2
    bench.do()
    assert runner.killed == 0  # idle
    bench.add(new_live())
    bench.now += SILENCE_PATIENCE_SECS / 2
    bench.frames(step())
    bench.now += SILENCE_PATIENCE_SECS - 1
    bench.do()
    assert runner.killed == 0  # it spoke in between
    bench.now += 2
    bench.do()
    assert runner.killed == 1


def test_release_hands_everything_back_and_takes_nothing_more(bench: Bench) -> None:
    runner = bench.start()
    live = new_live()
    bench.add(live)
    bench.do(ReleaseAll())
    assert outcome_of(live).fate is Fate.RELEASED
    assert runner.cancelled == [live.sequence_id]
    late = new_live()
    bench.add(late)
    assert outcome_of(late).fate is Fate.RELEASED
    assert not bench.do(Quit(spare_secs=4.0))
    assert (runner.stopped, runner.stop_secs) == (1, RUNNER_STOP_SECS + 4.0)


# ---- runners that die ----


def test_every_sequence_goes_on_in_the_next_runner(bench: Bench) -> None:
    bench.start()
    lives = [new_live() for _ in range(3)]
    bench.add(*lives)
    bench.frames(step(*[(live.sequence_id, 1, "a") for live in lives]))
    bench.die()
    assert all(bench.states(live)[-1] == "loading" for live in lives)
    runner = bench.start()
    assert {one.sequence_id for one in runner.submissions} == {live.sequence_id for live in lives}
    assert all(one.emitted == [ord("a")] for one in runner.submissions)
    bench.frames(step(*[(live.sequence_id, 2, "b") for live in lives]))
    assert [bench.texts(live) for live in lives] == ["ab"] * 3


def test_a_frame_that_breaks_the_count_ends_the_runner(bench: Bench) -> None:
    runner = bench.start()
    live = new_live()
    bench.add(live)
    bench.frames(step((live.sequence_id, 5, "x")))
    assert runner.killed == 1
    assert not is_over(live)
    bench.die()
    assert bench.start().submissions[0].emitted == []


def run_poisoned(bench: Bench, poison: Live, others: list[Live], *, poison_at: int) -> int:
    """Play runners that die whenever they hold ``poison`` and it has said ``poison_at`` tokens; returns the deaths."""
    deaths = 0
    while not is_over(poison) or not all(map(is_over, others)):
        runner = bench.start()
        assert deaths < 20
        for _ in range(50):
            inside = [live for live in (*others, poison) if live.is_in_runner and not is_over(live)]
            if poison in inside and len(poison.tokens) >= poison_at:
                bench.die()
                deaths += 1
                break
            assert inside or not runner.submissions or all(map(is_over, (*others, poison)))
            bench.frames(step(*[(live.sequence_id, len(live.tokens) + 1, "x") for live in inside]))
            bench.frames(*[ended(live.sequence_id) for live in inside if len(live.tokens) >= 6])
            if is_over(poison) and all(map(is_over, others)):
                break
    return deaths


@pytest.mark.parametrize("poison_at", [0, 3])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_the_sequence_that_kills_runners_fails_alone(bench: Bench, poison_at: int, position: int) -> None:
    others = [new_live() for _ in range(3)]
    poison = new_live()
    everyone = list(others)
    everyone.insert(position, poison)
    bench.add(*everyone)
    deaths = run_poisoned(bench, poison, others, poison_at=poison_at)
    ending = outcome_of(poison).ending
    assert ending is not None
    assert (ending.status, ending.error_code) == (Status.FAILED, "runner_crashed")
    assert deaths <= 6
    for live in others:
        end = outcome_of(live).ending
        assert end is not None
        assert end.status is Status.COMPLETE
        assert bench.texts(live) == "x" * 6


def test_two_poisoned_sequences_both_fail_and_the_rest_completes(bench: Bench) -> None:
    first, second, good = new_live(), new_live(), new_live()
    bench.add(first, good, second)
    for _ in range(12):
        runner = bench.start()
        while not any(live.is_in_runner and not is_over(live) for live in (first, second)):
            inside = [live for live in (good,) if live.is_in_runner and not is_over(live)]
            if not inside:
                break
            bench.frames(step(*[(live.sequence_id, len(live.tokens) + 1, "x") for live in inside]))
            bench.frames(*[ended(live.sequence_id) for live in inside if len(live.tokens) >= 3])
        if all(map(is_over, (first, second, good))):
            break
        assert runner.submissions
        bench.die()
    assert [outcome_of(live).ending.error_code for live in (first, second)] == ["runner_crashed"] * 2  # type: ignore[union-attr]
    assert outcome_of(good).ending.status is Status.COMPLETE  # type: ignore[union-attr]


def test_a_sequence_that_clears_itself_each_time_is_given_up_in_the_end(bench: Bench) -> None:
    live = new_live()
    bench.add(live)
    deaths = 0
    while not is_over(live):
        bench.start()
        bench.frames(step((live.sequence_id, len(live.tokens) + 1, "x")))
        bench.die()
        deaths += 1
        assert deaths <= 10
    ending = outcome_of(live).ending
    assert ending is not None
    assert ending.error_code == "runner_crashed"


def test_newcomers_wait_while_a_suspect_is_tried(bench: Bench) -> None:
    suspect = new_live()
    bench.add(suspect)
    for _ in range(2):
        bench.start()
        bench.die()
    runner = bench.start()
    newcomer = new_live()
    bench.add(newcomer)
    assert [one.sequence_id for one in runner.submissions] == [suspect.sequence_id]
    bench.frames(step((suspect.sequence_id, 1, "x")))
    assert [one.sequence_id for one in runner.submissions] == [suspect.sequence_id, newcomer.sequence_id]


# ---- runners that do not start ----


def fail_start(bench: Bench) -> None:
    bench.number += 1
    bench.do(StartFailed(bench.number, "model_file", "the file is truncated"))


def test_a_start_that_fails_is_tried_again_later(bench: Bench) -> None:
    live = new_live()
    bench.add(live)
    fail_start(bench)
    assert not is_over(live)
    bench.now += 0.5
    bench.do()
    assert bench.placement._desk.cpu._number == 1
    bench.now += 0.6
    bench.do()
    assert bench.placement._desk.cpu._number == 2
    assert [one.sequence_id for one in bench.start().submissions] == [live.sequence_id]


def test_after_three_failed_starts_what_waits_is_told(bench: Bench) -> None:
    live = new_live()
    bench.add(live)
    for _ in range(3):
        assert not is_over(live)
        fail_start(bench)
        bench.now += 60
        bench.do()
    ending = outcome_of(live).ending
    assert ending is not None
    assert (ending.status, ending.error_code) == (Status.FAILED, "model_unavailable")
    assert "truncated" in ending.error_message


def test_a_runner_whose_end_is_told_before_its_start_is_not_used(bench: Bench) -> None:
    live = new_live()
    bench.add(live)
    bench.number = 1
    dead = StubRunner()
    bench.do(RunnerGone(1, "killed by SIGSEGV"), Started(1, dead, READY))
    assert dead.submissions == []
    assert bench.placement.ready is None
    bench.now += 2
    bench.do()
    assert [one.sequence_id for one in bench.start().submissions] == [live.sequence_id]


def test_events_of_a_former_runner_are_ignored(bench: Bench) -> None:
    bench.start()
    live = new_live()
    bench.add(live)
    bench.die()
    bench.start()
    bench.do(FrameCame(1, step((live.sequence_id, 1, "x"))), RunnerGone(1, "again"))
    assert bench.placement.ready is not None
    assert live.tokens == []


def test_what_comes_after_the_end_is_given_back() -> None:
    """A claim that waited for the database may come when the worker has stopped; its thread must not wait for ever."""
    placement = Placement(make_stub, lambda _: None)
    placement.begin()
    placement.end(5.0)
    late = new_live()
    placement.add(late)
    outcome = late.wait(2.0)
    assert outcome is not None
    assert outcome.fate is Fate.RELEASED


def test_a_runner_that_is_told_to_stop_outlives_nothing_it_needs() -> None:
    """The kernel kills a runner with the thread that started it: that thread ends after the runner has saved."""
    starters: list[threading.Thread] = []
    lived_through: list[bool] = []

    class SavingRunner(StubRunner):
        def start(self) -> Ready:
            starters.append(threading.current_thread())
            return READY

        def stop(self, timeout_secs: float) -> None:
            starters[0].join(0.3)  # what it takes to save
            lived_through.append(starters[0].is_alive())

    placement = Placement(lambda on_frame, on_exit: SavingRunner(), lambda _: None)
    placement.begin()
    deadline = time.monotonic() + 10.0
    while placement.ready is None and time.monotonic() < deadline:
        time.sleep(0.01)
    placement.end(5.0)
    assert lived_through == [True]
    assert not starters[0].is_alive(), "and no longer than that"
