"""The GPU changes hands between runner processes (fake model, simulated GPU): streams are whole, nothing is left.

Simulated: the GPU is a second runner on the CPU, its memory that process's.
"""

import os
import signal
from pathlib import Path

import pytest
from django.conf import settings

from inference.config import tokenizer
from inference.dispatch.generation_state import ActiveGeneration, ClaimState
from inference.dispatch.gpu_state import GpuState
from inference.gpu.device.lock import gpu_lock
from inference.queue.results import device_runs
from inference.token_stream.entries import StatusEntry
from tests.inference.dispatch.process_harness import Party, party, random_hand_overs

N_STREAMS = 8
N_HAND_OVERS = int(os.environ.get("FAULT_HAND_OVERS", "20"))


def counted(n: int) -> str:
    return "".join(f"{number} " for number in range(1, n + 1))


@pytest.fixture(autouse=True)
def _eight_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight streams at once; whatever configuration was computed before is not used."""
    monkeypatch.setattr(settings, "GEMMA_PARALLEL", N_STREAMS)
    monkeypatch.setattr(tokenizer, "_tokenizer", None)


def test_an_answer_goes_to_the_card_and_back_in_mid_sentence(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        generation = there.ask("[[delay: 4]] [[count: 120]]")
        there.until(lambda: len(generation.tokens) > 20)
        there.to_card()
        n_there = len(generation.tokens)
        there.until(lambda: len(generation.tokens) > n_there + 20)
        secs = there.to_cpu()
        assert there.text(generation) == counted(120)
        runs = device_runs(generation.tokens)
        assert [run["device"] for run in runs] == ["cpu", "gpu", "cpu"]
        assert secs < 5.0
        (record,) = there.records
        assert (record.n_sequences, record.is_simulated, record.device_to) == (2, True, "gpu")
        assert record.moved_bytes > 0
        timings = there.outcome(generation).timings
        assert timings["restore"] > 0
        # Everything that the two runners computed: the prompt once, and each token once.
        report = there.dispatcher.meter.report()
        assert report.n_prefill_tokens + report.n_decode_tokens <= len(generation.prompt) + len(generation.tokens) + 2


def test_the_first_token_does_not_wait_for_a_coordinator_that_takes_its_time(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        there.lease_client.grant_after_secs = 1.0
        generation = there.ask("[[delay: 10]] [[count: 900]]")
        there.until(lambda: there.at(GpuState.GPU))
        kinds = [entry.state if isinstance(entry, StatusEntry) else "token" for entry in there.streams[generation]]
        order = [kinds.index(kind) for kind in ("waiting_for_gpu", "token", "loading")]
        assert order == sorted(order), kinds[:8]
        assert len(generation.tokens) > 10, "the answer went on meanwhile"
        there.dispatcher.cancel(generation.generation_id)
        there.outcome(generation)


@pytest.mark.timeout(120 + 3 * N_HAND_OVERS)
def test_random_hand_overs_under_eight_streams(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        wanted: dict[ActiveGeneration, str] = {}
        n_reached = n_done = 0
        while n_done < N_HAND_OVERS:
            generations = [there.ask(f"[[delay: 3]] [[count: {150 + number}]]") for number in range(N_STREAMS)]
            wanted |= {generation: counted(150 + number) for number, generation in enumerate(generations)}

            def is_done(generations: list[ActiveGeneration] = generations) -> bool:
                return all(generation.wait(0) is not None for generation in generations)

            n_granted, n_there = random_hand_overs(there, N_HAND_OVERS - n_done, seed=n_done, is_done=is_done)
            there.until(is_done)
            n_done += n_granted
            n_reached += n_there
        assert n_reached > N_HAND_OVERS // 3
        assert {there.text(generation) == text for generation, text in wanted.items()} == {True}
        there.until(lambda: len(there.records) >= n_reached, 5.0)


@pytest.mark.parametrize("state", [GpuState.LOADING, GpuState.MOVING, GpuState.GPU, GpuState.YIELDING])
def test_kill_9_of_the_cards_runner_at_each_stage(tmp_path: Path, state: GpuState) -> None:
    with party(tmp_path, load_delay_ms=300.0) as there:
        generations = [there.ask("[[delay: 3]] [[count: 200]]") for _ in range(3)]
        there.until(lambda: all(generation.tokens for generation in generations))
        kill_at(there, state)
        there.until(lambda: there.lease_client.lease is None)
        assert {there.text(generation) == counted(200) for generation in generations} == {True}
        assert all(there.outcome(generation).claim is ClaimState.ENDED for generation in generations)
        assert there.records[0].ended_because


def kill_at(there: Party, state: GpuState) -> None:
    there.until(lambda: there.lease_client.is_requested)
    there.lease_client.grant()
    there.until(lambda: there.at(GpuState.GPU) or gpu_process(there) is not None)
    if state is not GpuState.LOADING:
        there.until(lambda: there.at(state, GpuState.GPU))
    if state is GpuState.YIELDING:
        there.lease_client.recall()
    pid = gpu_process(there)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def gpu_process(there: Party) -> int | None:
    """Also of one that is still loading."""
    assert there.dispatcher._loop.gpu is not None
    starting = there.dispatcher._loop.gpu._launcher._starting
    process = getattr(starting, "_process", None)
    return there.dispatcher.gpu_pid or (process.pid if process is not None else None)


def next_turn(there: Party, generation: ActiveGeneration) -> list[int]:
    """The prompt of a turn that follows an answer."""
    there.outcome(generation)
    more = "<end_of_turn>\n<start_of_turn>user\n[[count: 9]]<end_of_turn>\n<start_of_turn>model\n"
    known = generation.prompt + [token.token for token in generation.tokens]
    return known + tokenizer.get_tokenizer().encode(more, special=True)


def test_what_was_said_on_the_card_is_gone_on_from_on_the_cpu_and_there_again(tmp_path: Path) -> None:
    """Nothing of a conversation is computed again after a move in either direction."""
    with party(tmp_path) as there:
        there.dispatcher.hold("s", 600.0)
        there.to_card()
        first = there.ask("[[count: 80]]", session_id="s")
        prompt = next_turn(there, first)
        there.to_cpu()
        second = there.submit(prompt, session_id="s")
        assert there.text(second) == counted(9)
        assert there.outcome(second).n_cached >= len(first.prompt) + len(first.tokens) - 1
        assert {token.device for token in second.tokens} == {"cpu"}
        prompt = next_turn(there, second)
        there.to_card()
        third = there.submit(prompt, session_id="s")
        assert there.text(third) == counted(9)
        assert there.outcome(third).n_cached >= len(second.prompt) + len(second.tokens) - 1
        assert {token.device for token in third.tokens} == {"gpu"}


def test_another_process_that_uses_the_card_is_left_in_peace(tmp_path: Path) -> None:
    held = gpu_lock("GPU-simulated", tmp_path)
    assert held is not None
    with held, party(tmp_path) as there:
        generation = there.ask("[[delay: 2]] [[count: 150]]")
        there.until(lambda: there.lease_client.is_requested)
        there.lease_client.grant()
        there.until(lambda: there.lease_client.lease is None)
        assert "another process" in there.dispatcher.describe()["reason"]
        assert there.text(generation) == counted(150)
        assert {token.device for token in generation.tokens} == {"cpu"}


def test_the_worker_stops_while_the_card_is_in_use(tmp_path: Path) -> None:
    """``party`` checks that nothing is left."""
    with party(tmp_path) as there:
        generations = [there.ask("[[delay: 5]] [[count: 900]]") for _ in range(3)]
        there.until(lambda: all(generation.tokens for generation in generations))
        there.to_card()
        there.dispatcher.release_all()
        assert {there.outcome(generation).claim for generation in generations} == {ClaimState.RELEASED}
    assert there.lease_client.released
