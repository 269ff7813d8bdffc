"""A hand-over of the GPU event by event, with stub runners: generations go on, only their device changes."""

import shutil
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from inference.dispatch.events import AddGeneration, HoldGpu, ReleaseHold, Shutdown, StopGeneration, YieldGpu
from inference.dispatch.generation_state import ActiveGeneration, ClaimState
from inference.dispatch.gpu_session import GPU
from inference.dispatch.gpu_state import GpuState
from inference.dispatch.lease_release import VRAM_PATIENCE_SECS
from inference.dispatch.runner_launcher import FrameReceived
from inference.dispatch.runner_slot import RUNNER_STOP_SECS
from inference.engine.protocol.frames import (
    CacheExported,
    Cancel,
    Export,
    ExportCache,
    Exported,
    ExportedSequence,
    Step,
    Submit,
)
from inference.enums import FinishReason
from inference.queue.results import CANCELLED, device_runs
from tests.inference.dispatch.gpu_harness import POLICY, GpuHarness
from tests.inference.making import PARAMS
from tests.inference.stub_runner import StubRunner, ended, step


@pytest.fixture
def bench(tmp_path: Path) -> GpuHarness:
    return GpuHarness(tmp_path)


def finish(bench: GpuHarness, generations: list[ActiveGeneration]) -> None:
    """Two more tokens of each, wherever it is, and its end; the text is whole."""
    for _ in range(2):
        bench.say(generations)
    for generation in generations:
        assert [token.index for token in generation.tokens] == list(range(1, len(generation.tokens) + 1))
        frame = ended(generation.sequence_id, "length", n_kept=len(generation.tokens))
        (bench.gpu_says if generation.device == GPU else bench.cpu_says)(frame)
        outcome = generation.wait(0)
        assert outcome is not None
        assert outcome.ending is not None
        assert outcome.ending.finish_reason is FinishReason.LENGTH
        assert bench.texts(generation) == "x" * len(generation.tokens)


def leave(bench: GpuHarness) -> None:
    """From anywhere with a lease: the process ends, the memory is free, the lease is back."""
    if bench.at(GpuState.YIELDING):
        bench.gpu_gives_out()
    if bench.at(GpuState.LEAVING):
        if bench.dispatcher._loop.gpu is not None and bench.dispatcher._loop.gpu.is_starting:
            bench.gpu_does_not_start()
        elif bench.dispatcher.gpu_pid is not None:
            bench.gpu_dies()
    bench.cpu_gives_out()
    bench.do()
    assert not bench.at(GpuState.LEAVING)
    assert not bench.has_lease()


# ---- there and back ----


def test_an_answer_begins_on_the_cpu_at_once_and_the_card_is_asked_for_meanwhile(bench: GpuHarness) -> None:
    (generation,) = bench.add()
    assert [each.sequence_id for each in bench.cpu.submissions] == [generation.sequence_id]
    assert bench.lease_client.requests == [(1, frozenset())]
    assert bench.at(GpuState.WAITING)
    assert bench.states(generation) == ["waiting_for_gpu", "prefill"]
    bench.say([generation])
    assert generation.tokens[0].device == "cpu"


def test_live_sequences_move_to_the_card_with_their_state_and_go_on(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.MOVING)
    (export,) = [frame for frame in bench.cpu.sent if isinstance(frame, Export)]
    assert export.sequence_ids == [generation.sequence_id for generation in generations]
    assert bench.gpu.submissions == []
    bench.cpu_gives_out()
    assert bench.at(GpuState.GPU)
    assert [(each.sequence_id, each.emitted) for each in bench.gpu.submissions] == [
        (generation.sequence_id, [ord("x")]) for generation in generations
    ]
    assert all(Path(each.state).read_bytes() == b"state" for each in bench.gpu.submissions)
    bench.say(generations)
    assert [device_runs(generation.tokens) for generation in generations] == [
        [{"device": "cpu", "tokens": 1}, {"device": "gpu", "tokens": 1}]
    ] * 2
    finish(bench, generations)


def test_what_may_be_gone_on_from_is_copied_while_the_model_loads_and_again_at_the_move(bench: GpuHarness) -> None:
    bench.add()
    bench.grant()
    (ahead,) = [frame for frame in bench.cpu.sent if isinstance(frame, ExportCache)]
    assert not ahead.is_continuation
    bench.cpu_gives_out()
    bench.start_gpu()
    assert [type(frame).__name__ for frame in bench.gpu.sent] == ["Import"]
    (again,) = [frame for frame in bench.cpu.sent if isinstance(frame, ExportCache)]
    assert again.is_continuation
    bench.cpu_gives_out()
    assert [type(frame).__name__ for frame in bench.gpu.sent].count("Import") == 2


def test_where_new_work_begins_in_each_stage(tmp_path: Path) -> None:
    for state in GpuState:
        folder = tmp_path / state
        folder.mkdir()
        bench = GpuHarness(folder)
        if state is not GpuState.CPU:
            bench.reach(state)
        (late,) = bench.add()
        assert late.device == ("gpu" if state in (GpuState.MOVING, GpuState.GPU) else "cpu"), state


def test_the_card_is_wanted_back_and_everything_goes_on_on_the_cpu(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.GPU)
    bench.say(generations)
    bench.recall()
    assert bench.at(GpuState.YIELDING)
    assert all("yielding" in bench.states(generation) for generation in generations)
    before = len(bench.cpu.submissions)
    bench.gpu_gives_out()
    assert bench.at(GpuState.LEAVING)
    assert bench.gpu.killed == 1
    again = bench.cpu.submissions[before:]
    assert [len(each.emitted) for each in again] == [2, 2]
    assert all(each.state for each in again)
    assert bench.has_lease(), "its process has not ended yet"
    bench.card.used_mb = 900
    bench.gpu_dies()
    assert bench.has_lease(), "its memory is not free yet"
    bench.card.used_mb = 0
    bench.do()
    assert not bench.has_lease()
    assert bench.card.requests[-1] == [2000]
    finish(bench, generations)
    (_, result) = bench.lease_client.released[-1]
    assert (result["ended_because"], result["vram_free"]) == ("transcription wants the GPU", True)
    assert bench.record().n_sequences == 4


def dies_and_goes_without_proof(bench: GpuHarness) -> None:
    """Freed memory is never reported: the lease is released after a while all the same, with that in its result."""
    bench.gpu_dies()
    bench.wait(VRAM_PATIENCE_SECS - 0.1)
    assert bench.has_lease()
    bench.wait(0.2)
    assert not bench.has_lease()
    assert bench.lease_client.released[-1][1]["vram_free"] is False


def test_memory_that_a_dead_process_seems_to_hold_does_not_keep_the_lease_for_ever(bench: GpuHarness) -> None:
    bench.reach(GpuState.LEAVING)
    bench.card.used_mb = 900
    dies_and_goes_without_proof(bench)


def test_a_driver_that_says_nothing_keeps_the_lease_no_longer_than_one_that_says_no(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.LEAVING)
    bench.card.is_away = True
    dies_and_goes_without_proof(bench)
    finish(bench, generations)


def test_a_runner_that_died_while_it_loaded_held_memory_too(bench: GpuHarness) -> None:
    bench.reach(GpuState.LOADING)
    bench.card.used_mb = 900
    bench.gpu_does_not_start(pid=2001)
    bench.do()
    assert bench.card.requests[-1] == [2001]
    assert bench.has_lease()
    bench.card.used_mb = 0
    bench.do()
    assert not bench.has_lease()


def test_one_that_was_given_up_in_the_moment_it_was_ready_held_memory_too(bench: GpuHarness) -> None:
    bench.reach(GpuState.LOADING)
    bench.recall()
    bench.card.used_mb = 900
    bench.start_gpu()
    assert bench.gpu.killed == 1
    bench.gpu_dies()
    assert bench.card.requests[-1] == [2000]
    assert bench.has_lease()


def test_the_worker_that_stops_gives_back_when_the_memory_is_free(bench: GpuHarness) -> None:
    bench.reach(GpuState.GPU)
    assert bench.dispatcher._loop.gpu is not None
    bench.dispatcher._loop.gpu.begin()
    used = [900, 900, 0]
    bench.card.used_by = lambda: used.pop(0)
    bench.residency.end(1.0)
    assert used == []
    assert bench.lease_client.released[-1][1]["vram_free"] is True


def test_who_waits_for_the_card_does_not_wait_for_states_to_be_saved(bench: GpuHarness) -> None:
    bench.reach(GpuState.GPU)
    assert not bench.dispatcher.step([Shutdown(spare_secs=4.0)])
    assert bench.cpu.stop_secs == RUNNER_STOP_SECS


def test_the_record_says_what_the_stay_was_like(bench: GpuHarness) -> None:
    bench.add()
    bench.now += 2.0
    bench.grant()
    bench.cpu_gives_out()
    bench.now += 1.5
    bench.start_gpu()
    bench.cpu_gives_out()
    bench.gpu_says(*bench.give_out(bench.gpu))
    (generation,) = bench.dispatcher._loop.generations.by_id.values()
    finish(bench, [generation])
    bench.now += 0.5
    bench.recall()
    bench.now += 0.25
    leave(bench)
    record = bench.record()
    assert (record.waited_ms, record.loaded_ms, record.held_secs) == (2000.0, 1500.0, 2.25)
    assert (record.n_served, record.n_sequences, record.yield_ms) == (1, 1, 250.0)
    assert (record.device_from, record.device_to, record.is_simulated) == ("cpu", "gpu", True)
    assert (record.lease_epoch, record.coordinator) == (1, "builtin")
    assert record.moved_bytes >= 100
    assert record.ended_because == "transcription wants the GPU"


def test_the_record_has_the_time_for_which_another_tenant_did_without_the_gpu(bench: GpuHarness) -> None:
    bench.lease_client.is_wanted_elsewhere = False
    generations = bench.reach(GpuState.GPU)
    bench.wait(2.0)
    bench.lease_client.is_wanted_elsewhere = True
    bench.wait(0.5)
    bench.lease_client.is_wanted_elsewhere = False
    bench.wait(1.0)
    bench.recall()
    leave(bench)
    record = bench.record()
    assert record.taken_secs == 0.5
    assert record.held_secs >= 3.5
    assert record.n_served == len(generations), "answers that go on elsewhere, too"
    finish(bench, generations)


def test_an_answers_timings_say_what_it_waited_for(bench: GpuHarness) -> None:
    (generation,) = bench.add()
    bench.say([generation])
    bench.now += 2.0
    bench.grant()
    bench.now += 1.0
    bench.start_gpu()
    bench.now += 0.05
    bench.cpu_gives_out()
    bench.now += 0.05
    bench.say([generation])
    bench.gpu_says(ended(generation.sequence_id, n_kept=2))
    outcome = generation.wait(0)
    assert outcome is not None
    timings = outcome.timings
    assert (timings["gpu_wait"], timings["load"]) == (2000.0, 1000.0)
    assert timings["restore"] == pytest.approx(100.0)
    assert (timings["prefill"], timings["decode"]) == (5.0 + 3.0, 7.0 + 4.0), "of both runners"
    assert outcome.n_cached == 1, "as its first runner found it"


def test_a_state_lies_there_until_its_reader_has_come_to_it(bench: GpuHarness) -> None:
    """The CPU's runner, in the middle of a long step, has read the copies and not yet the submitted sequences."""
    generations = bench.reach(GpuState.LEAVING)
    states = [Path(each.state) for each in bench.cpu.submissions[-2:]]
    bench.cpu_gives_out()
    assert all(state.exists() for state in states)
    leave(bench)
    bench.wait(POLICY.min_hold_secs + 1.0)
    bench.grant()
    assert all(state.exists() for state in states), "also when the card comes again"
    bench.cpu_gives_out()
    bench.start_gpu()
    bench.cpu_gives_out()
    finish(bench, generations)


# ---- not granted ----


def test_refused_means_answered_on_the_cpu_with_the_reason(bench: GpuHarness) -> None:
    (generation,) = bench.add()
    bench.lease_client.refusing = "the coordinator does not answer"
    bench.lease_client.grant()
    bench.do()
    assert bench.reasons(generation) == ["the coordinator does not answer"]
    (late,) = bench.add()
    assert bench.reasons(late) == ["the coordinator does not answer"], "also for who comes later"
    finish(bench, [generation, late])
    assert {token.device for token in generation.tokens} == {"cpu"}


def test_a_refusal_says_nothing_once_nobody_asks(bench: GpuHarness) -> None:
    """Else it would answer the next /warmup before any request was made."""
    generations = bench.reach(GpuState.WAITING)
    bench.lease_client.refusing = "ml-service holds the GPU"
    bench.lease_client.grant()
    bench.do()
    assert bench.dispatcher.describe()["reason"] == "ml-service holds the GPU"
    finish(bench, generations)
    assert bench.at(GpuState.CPU)
    assert bench.dispatcher.describe()["reason"] == ""


def test_when_the_work_ends_first_the_request_is_withdrawn(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.WAITING)
    finish(bench, generations)
    assert not bench.lease_client.is_requested
    assert bench.at(GpuState.CPU)
    assert bench.records == [], "the card never changed hands"


def test_a_grant_that_crosses_the_withdrawal_goes_back(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.WAITING)
    lease = bench.lease_client.grant()
    events, bench.events[:] = list(bench.events), []
    finish(bench, generations)
    bench.events += events
    bench.do()
    assert bench.lease_client.released[0][0] == lease
    assert bench.at(GpuState.CPU)


def test_when_the_work_ends_during_the_load_the_card_is_kept_for_the_linger(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.LOADING)
    finish(bench, generations)
    bench.start_gpu()
    bench.cpu_gives_out()
    assert bench.at(GpuState.GPU)
    (generation,) = bench.add()
    assert generation.device == "gpu"


@pytest.mark.parametrize(("max_tokens", "n_prompt", "asks"), [(40, 3, False), (400, 3, True), (40, 4000, True)])
def test_an_answer_that_is_over_before_the_card_could_come_does_not_ask(
    bench: GpuHarness, max_tokens: int, n_prompt: int, asks: bool
) -> None:
    """At 20 ms a token and 2 ms a token of the prompt, and 3 s until the GPU comes."""
    speed = bench.residency.demand.speed
    speed.note_step(Step(emissions=[], n_prefill=100, n_decode=0, step_ms=200.0))
    speed.note_step(Step(emissions=[], n_prefill=0, n_decode=4, step_ms=20.0))
    speed.note_session_start(3.0)
    params = msgspec.structs.replace(PARAMS, max_tokens=max_tokens)
    generation = ActiveGeneration(uuid4(), 1, [1] * n_prompt, params, 1)
    bench.do(AddGeneration(generation))
    assert generation.device == "cpu"
    assert bench.lease_client.is_requested is asks


# ---- leaving ----


def test_without_work_the_card_is_left_after_the_linger_but_not_before_the_shortest_hold(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.GPU)
    finish(bench, generations)
    bench.wait(POLICY.linger_secs + 0.1)
    assert bench.at(GpuState.GPU), "held for too short a time"
    bench.wait(POLICY.min_hold_secs)
    assert bench.at(GpuState.YIELDING)
    leave(bench)
    bench.wait(1.0)
    assert bench.at(GpuState.CPU), "nothing asks for it"


def test_a_long_queue_does_not_keep_the_card_from_the_others(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.GPU)
    for _ in range(6):
        bench.now += POLICY.max_hold_secs / 6 + 0.1
        bench.say(generations)
    assert bench.at(GpuState.YIELDING)
    leave(bench)
    n_asked = len(bench.lease_client.requests)
    bench.wait(POLICY.rest_secs - 1.0)
    assert len(bench.lease_client.requests) == n_asked, "the others have it for a while"
    bench.wait(1.5)
    assert len(bench.lease_client.requests) == n_asked + 1


def test_alone_it_remains_on_its_gpu_until_another_tenant_comes(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.GPU)
    bench.lease_client.is_wanted_elsewhere = False
    for _ in range(18):
        bench.now += POLICY.max_hold_secs / 6 + 0.1
        bench.say(generations)
    assert bench.at(GpuState.GPU)
    bench.lease_client.is_wanted_elsewhere = True
    bench.say(generations)
    assert bench.at(GpuState.YIELDING)
    leave(bench)
    finish(bench, generations)


def test_alone_it_leaves_after_its_last_answer_all_the_same(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.GPU)
    bench.lease_client.is_wanted_elsewhere = False
    bench.now += 3 * POLICY.max_hold_secs
    finish(bench, generations)
    bench.wait(POLICY.linger_secs + 0.1)
    assert bench.at(GpuState.YIELDING)
    leave(bench)


def test_a_load_that_takes_as_long_as_the_longest_stay_is_given_up(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.LOADING)
    bench.lease_client.is_wanted_elsewhere = False  # also when no other tenant is there
    bench.wait(POLICY.max_hold_secs - 0.1)
    assert bench.at(GpuState.LOADING)
    bench.wait(0.2)
    assert bench.at(GpuState.LEAVING)
    leave(bench)
    assert bench.residency.demand.breaker.n_failures == 1
    finish(bench, generations)


def test_whoever_wanted_it_back_has_it_for_a_while(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.LEAVING)
    leave(bench)
    n_asked = len(bench.lease_client.requests)
    bench.wait(POLICY.min_hold_secs - 1.0)
    assert len(bench.lease_client.requests) == n_asked
    bench.wait(1.5)
    assert len(bench.lease_client.requests) == n_asked + 1
    finish(bench, generations)


@pytest.mark.parametrize(
    "state", [GpuState.LOADING, GpuState.MOVING, GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING]
)
def test_a_lease_that_is_lost_means_to_stop_using_the_card_at_once(bench: GpuHarness, state: GpuState) -> None:
    generations = bench.reach(state)
    bench.lose()
    assert bench.at(GpuState.LEAVING)
    assert bench.gpu.killed == (state is not GpuState.LOADING)
    if state is GpuState.MOVING:
        bench.cpu_gives_out()
    leave(bench)
    finish(bench, generations)
    assert all(generation.deaths.total == 0 for generation in generations), "it was no fault of theirs"


@pytest.mark.parametrize("state", [GpuState.LOADING, GpuState.MOVING, GpuState.GPU])
def test_wanted_back_at_any_time(bench: GpuHarness, state: GpuState) -> None:
    generations = bench.reach(state)
    bench.recall()
    if state is GpuState.MOVING:
        bench.cpu_gives_out()
        assert all(generation.device == "cpu" for generation in generations), "they never got there"
    leave(bench)
    finish(bench, generations)


def test_a_runner_that_does_not_give_its_work_out_in_time_is_ended(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.YIELDING)
    bench.wait(POLICY.yield_patience_secs + 0.1)
    assert bench.at(GpuState.LEAVING)
    assert bench.gpu.killed == 1
    leave(bench)
    assert [each.state for each in bench.cpu.submissions[-2:]] == ["", ""]
    finish(bench, generations)


# ---- deaths ----


@pytest.mark.parametrize(
    "state", [GpuState.LOADING, GpuState.MOVING, GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING]
)
def test_the_cards_runner_dies_in_each_stage(bench: GpuHarness, state: GpuState) -> None:
    generations = bench.reach(state)
    if state is GpuState.LOADING:
        bench.gpu_does_not_start()
    else:
        bench.gpu_dies()
    if state is GpuState.MOVING:
        bench.cpu_gives_out()
    bench.do()
    assert not bench.has_lease()
    assert all(generation.device == "cpu" for generation in generations)
    finish(bench, generations)


@pytest.mark.parametrize("state", [GpuState.MOVING, GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING])
def test_one_that_left_because_its_worker_was_suspended_is_no_failure(bench: GpuHarness, state: GpuState) -> None:
    generations = bench.reach(state)
    bench.gpu_leaves_by_itself()
    if state is GpuState.MOVING:
        bench.cpu_gives_out()
    bench.do()
    assert not bench.has_lease()
    assert all((each.device, each.deaths.total) == ("cpu", 0) for each in generations)
    assert "ended" not in str(bench.dispatcher.describe()["reason"])
    finish(bench, generations)


def test_it_may_leave_by_itself_again_and_again(bench: GpuHarness) -> None:
    for _ in range(5):  # of failures three would be enough to leave the GPU alone
        generations = bench.reach(GpuState.GPU)
        bench.gpu_leaves_by_itself()
        bench.do()
        finish(bench, generations)


def test_it_dies_half_way_with_some_of_its_work_given_out(bench: GpuHarness) -> None:
    first, second = bench.reach(GpuState.GPU)
    bench.recall()
    (export,) = [frame for frame in bench.gpu.sent if isinstance(frame, Export)]
    bench.gpu_says(step((second.sequence_id, 2, "x")))  # on its way when the order came
    bench.gpu_dies()
    assert export.sequence_ids == [first.sequence_id, second.sequence_id]
    assert [len(each.emitted) for each in bench.cpu.submissions[-2:]] == [1, 2]
    leave(bench)
    finish(bench, [first, second])


def test_after_repeated_deaths_it_is_left_alone_and_that_is_said(bench: GpuHarness) -> None:
    (generation,) = bench.add()
    for _ in range(3):
        assert bench.at(GpuState.WAITING)
        bench.grant()
        bench.gpu_does_not_start()
        bench.cpu_gives_out()
        bench.do()
    n_asked = len(bench.lease_client.requests)
    bench.wait(5.0)
    assert len(bench.lease_client.requests) == n_asked
    (late,) = bench.add()
    assert "failed 3 times" in bench.reasons(late)[-1]
    assert "failed 3 times" in str(bench.dispatcher.describe()["reason"])
    finish(bench, [generation, late])


@pytest.mark.parametrize(
    "state", [GpuState.WAITING, GpuState.LOADING, GpuState.MOVING, GpuState.GPU, GpuState.YIELDING]
)
def test_the_cpus_runner_dies_in_each_stage(bench: GpuHarness, state: GpuState) -> None:
    generations = bench.reach(state)
    bench.cpu_dies()
    if state is GpuState.MOVING:
        assert bench.at(GpuState.GPU)
        assert [each.state for each in bench.gpu.submissions] == ["", ""], "from their tokens"
    if state is GpuState.YIELDING:
        bench.gpu_gives_out()
        assert all(generation.device is None and generation.location.state_path for generation in generations), (
            "they wait with their states"
        )
    bench.start_cpu()
    finish(bench, generations)


def test_the_cpus_runner_is_away_when_the_cards_is_ready(bench: GpuHarness) -> None:
    """No runner is there to export anything; waiting for it would keep the GPU for ever."""
    generations = bench.reach(GpuState.LOADING)
    bench.cpu_dies()
    bench.start_gpu()
    assert bench.at(GpuState.GPU)
    finish(bench, generations)
    bench.wait(POLICY.min_hold_secs + POLICY.linger_secs)
    assert bench.at(GpuState.YIELDING)


def test_copies_for_a_runner_that_died_meanwhile_do_not_stay(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.YIELDING)
    bench.cpu_dies()
    bench.gpu_gives_out()
    leave(bench)
    bench.start_cpu()
    finish(bench, generations)
    assert [path for path in bench.files() if path.read_bytes() == b"copy"] == []


def test_a_load_that_came_to_nothing_leaves_no_copy_and_no_copying(bench: GpuHarness) -> None:
    """They may be a gigabyte, and the next session hours away."""
    generations = bench.add()
    bench.say(generations)
    bench.grant()
    request = bench.cpu.sent.pop()
    assert isinstance(request, ExportCache)
    copies = [Path(request.folder) / f"{number}.move" for number in range(2)]
    for copy in copies:
        copy.write_bytes(b"copy")
    bench.cpu_says(CacheExported(paths=[str(copies[0])], n_bytes=4, ms=1.0, is_complete=False))
    assert isinstance(bench.cpu.sent.pop(), ExportCache), "there is more to copy"
    bench.gpu_does_not_start()
    bench.do()
    assert not copies[0].exists()
    bench.cpu_says(CacheExported(paths=[str(copies[1])], n_bytes=4, ms=1.0, is_complete=False))
    assert not copies[1].exists()
    assert not [frame for frame in bench.cpu.sent if isinstance(frame, ExportCache)]
    finish(bench, generations)


def test_what_a_former_stay_asked_of_the_cpus_runner_is_no_answer_to_the_next(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.MOVING)
    bench.gpu_dies()  # and the CPU's runner, in the middle of a long step, has not given anything out
    bench.do()
    assert not bench.has_lease()
    assert bench.at(GpuState.CPU)
    bench.wait(0.1)
    assert bench.at(GpuState.CPU)
    bench.cpu_gives_out()
    bench.wait(0.1)
    assert bench.at(GpuState.WAITING)
    bench.grant()
    bench.cpu_gives_out()
    bench.start_gpu()
    bench.cpu_gives_out()
    assert bench.at(GpuState.GPU)
    finish(bench, generations)


def test_a_folder_that_somebody_removed_costs_the_states_alone(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.WAITING)
    shutil.rmtree(bench.residency._folder.path)
    bench.grant()
    bench.start_gpu()
    (export,) = [frame for frame in bench.cpu.sent if isinstance(frame, Export)]
    assert not [frame for frame in bench.cpu.sent if isinstance(frame, ExportCache)], "there is no room for copies"
    assert bench.cpu.killed == 0
    bench.cpu_says(Exported([ExportedSequence(each, "", 0, 0, 1.0, 1.0) for each in export.sequence_ids], 1.0))
    assert bench.at(GpuState.GPU)
    finish(bench, generations)


# ---- crossings ----


def test_one_that_is_cancelled_or_ends_while_it_leaves(bench: GpuHarness) -> None:
    cancelled, whole, gone = bench.reach(GpuState.GPU, n_generations=3)
    bench.recall()
    bench.do(StopGeneration(cancelled.generation_id, CANCELLED), StopGeneration(gone.generation_id, None))
    assert [frame.sequence_id for frame in bench.gpu.sent if isinstance(frame, Cancel)] == [
        cancelled.sequence_id,
        gone.sequence_id,
    ]
    bench.gpu_gives_out()
    outcome = cancelled.wait(0)
    assert outcome is not None
    assert outcome.ending == CANCELLED
    assert gone.wait(0).claim is ClaimState.LOST  # type: ignore[union-attr]
    assert bench.cpu.submissions[-1].sequence_id == whole.sequence_id
    leave(bench)
    finish(bench, [whole])
    bench.do()
    bench.residency._folder.clear()
    assert bench.files() == []


def test_frames_of_a_runner_that_it_has_left_are_not_taken(bench: GpuHarness) -> None:
    (generation,) = bench.reach(GpuState.GPU, n_generations=1)
    bench.cpu_says(step((generation.sequence_id, 2, "y")), ended(generation.sequence_id))
    assert (bench.texts(generation), generation.wait(0)) == ("x", None)


def test_news_of_a_former_lease_say_nothing(bench: GpuHarness) -> None:
    bench.reach(GpuState.GPU)
    bench.lease_client.recall("old")
    old = list(bench.events)
    bench.do()
    leave(bench)
    bench.wait(60.0)
    bench.grant()
    bench.events += old
    bench.do()
    assert bench.at(GpuState.LOADING)


# ---- sessions and orders ----


def test_a_session_brings_the_model_to_the_card_and_keeps_it(bench: GpuHarness) -> None:
    bench.do(HoldGpu("s", 30.0))
    assert bench.lease_client.requests == [(1, frozenset({"s"}))]
    bench.grant()
    bench.start_gpu()
    bench.cpu_gives_out()
    bench.wait(POLICY.min_hold_secs + POLICY.linger_secs)
    assert bench.at(GpuState.GPU)
    (generation,) = bench.add(session_id="s")
    bench.now += 20.0
    finish(bench, [generation])
    bench.wait(29.0)
    assert bench.at(GpuState.GPU), "from its last answer on"
    bench.do(ReleaseHold("s"))
    assert bench.at(GpuState.YIELDING)


def test_move_to_cpu_leaves_and_does_not_ask_again_before_there_is_new_work(bench: GpuHarness) -> None:
    generations = bench.reach(GpuState.GPU)
    bench.do(HoldGpu("s", 1000.0), YieldGpu("somebody asked for it"))
    assert bench.at(GpuState.YIELDING)
    leave(bench)
    n_asked = len(bench.lease_client.requests)
    bench.wait(1000.0)
    assert len(bench.lease_client.requests) == n_asked
    more = bench.add()
    assert len(bench.lease_client.requests) == n_asked + 1
    finish(bench, [*generations, *more])


def test_batch_work_asks_with_its_own_priority_until_a_person_comes(bench: GpuHarness) -> None:
    bench.add(priority=2)
    bench.add(priority=1, session_id="s")
    bench.wait(1.0)
    assert bench.lease_client.requests == [(2, frozenset()), (1, frozenset({"s"}))]


def test_a_card_that_is_too_small_is_not_asked_for(bench: GpuHarness) -> None:
    bench.obstacle = "the card has 100 MB free, one layer needs 900"
    (generation,) = bench.add()
    assert bench.lease_client.requests == []
    assert bench.dispatcher.describe()["reason"] == bench.obstacle
    finish(bench, [generation])
    bench.obstacle = None
    bench.residency.demand.speed.note_session_start(0.1)
    bench.wait(10.0)
    bench.add()
    assert len(bench.lease_client.requests) == 1


def test_events_of_the_cards_former_runner_are_ignored(bench: GpuHarness) -> None:
    (generation,) = bench.reach(GpuState.GPU, n_generations=1)
    number = bench._gpu_number
    bench.gpu_dies()
    bench.do()
    bench.do(FrameReceived(number, step((generation.sequence_id, 2, "y"))))
    assert bench.texts(generation) == "x"


def test_submissions_carry_a_state_once(bench: GpuHarness) -> None:
    (generation,) = bench.reach(GpuState.GPU, n_generations=1)
    assert isinstance(bench.gpu, StubRunner)
    (submit,) = [frame for frame in bench.gpu.sent if isinstance(frame, Submit)]
    assert submit.state
    assert generation.location.state_path == ""
