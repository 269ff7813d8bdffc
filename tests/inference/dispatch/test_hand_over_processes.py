"""The card changes hands between runner processes (fake model, simulated card): streams are whole, nothing is left.

Simulated: the card is a second runner on the CPU, its memory that process's.
"""

import os
import signal
from pathlib import Path

import pytest
from django.conf import settings

from inference.config import tokenizer
from inference.dispatch.generation_state import Fate, Live
from inference.dispatch.gpu_state import Stage
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
        live = there.ask("[[delay: 4]] [[count: 120]]")
        there.until(lambda: len(live.tokens) > 20)
        there.to_card()
        n_there = len(live.tokens)
        there.until(lambda: len(live.tokens) > n_there + 20)
        secs = there.to_cpu()
        assert there.text(live) == counted(120)
        runs = device_runs(live.tokens)
        assert [run["device"] for run in runs] == ["cpu", "gpu", "cpu"]
        assert secs < 5.0
        (record,) = there.records
        assert (record.n_sequences, record.is_simulated, record.device_to) == (2, True, "gpu")
        assert record.moved_bytes > 0
        timings = there.outcome(live).timings
        assert timings["restore"] > 0
        # Everything that the two runners computed: the prompt once, and each token once.
        report = there.placement.meter.report()
        assert report.n_prefill_tokens + report.n_decode_tokens <= len(live.prompt) + len(live.tokens) + 2


def test_the_first_token_does_not_wait_for_a_coordinator_that_takes_its_time(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        there.keeper.grant_after_secs = 1.0
        live = there.ask("[[delay: 10]] [[count: 900]]")
        there.until(lambda: there.at(Stage.GPU))
        kinds = [entry.state if isinstance(entry, StatusEntry) else "token" for entry in there.streams[live]]
        order = [kinds.index(kind) for kind in ("waiting_for_gpu", "token", "loading")]
        assert order == sorted(order), kinds[:8]
        assert len(live.tokens) > 10, "the answer went on meanwhile"
        there.placement.cancel(live.generation_id)
        there.outcome(live)


@pytest.mark.timeout(120 + 3 * N_HAND_OVERS)
def test_random_hand_overs_under_eight_streams(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        wanted: dict[Live, str] = {}
        n_reached = n_done = 0
        while n_done < N_HAND_OVERS:
            lives = [there.ask(f"[[delay: 3]] [[count: {150 + number}]]") for number in range(N_STREAMS)]
            wanted |= {live: counted(150 + number) for number, live in enumerate(lives)}

            def is_done(lives: list[Live] = lives) -> bool:
                return all(live.wait(0) is not None for live in lives)

            n_granted, n_there = random_hand_overs(there, N_HAND_OVERS - n_done, seed=n_done, is_done=is_done)
            there.until(is_done)
            n_done += n_granted
            n_reached += n_there
        assert n_reached > N_HAND_OVERS // 3
        assert {there.text(live) == text for live, text in wanted.items()} == {True}
        there.until(lambda: len(there.records) >= n_reached, 5.0)


@pytest.mark.parametrize("stage", [Stage.LOADING, Stage.MOVING, Stage.GPU, Stage.YIELDING])
def test_kill_9_of_the_cards_runner_at_each_stage(tmp_path: Path, stage: Stage) -> None:
    with party(tmp_path, load_delay_ms=300.0) as there:
        lives = [there.ask("[[delay: 3]] [[count: 200]]") for _ in range(3)]
        there.until(lambda: all(live.tokens for live in lives))
        kill_at(there, stage)
        there.until(lambda: there.keeper.lease is None)
        assert {there.text(live) == counted(200) for live in lives} == {True}
        assert all(there.outcome(live).fate is Fate.ENDED for live in lives)
        assert there.records[0].ended_because


def kill_at(there: Party, stage: Stage) -> None:
    there.until(lambda: there.keeper.is_wanted)
    there.keeper.grant()
    there.until(lambda: there.at(Stage.GPU) or gpu_process(there) is not None)
    if stage is not Stage.LOADING:
        there.until(lambda: there.at(stage, Stage.GPU))
    if stage is Stage.YIELDING:
        there.keeper.want_back()
    pid = gpu_process(there)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def gpu_process(there: Party) -> int | None:
    """Also of one that is still loading."""
    assert there.placement._desk.gpu is not None
    starting = there.placement._desk.gpu._launcher._starting
    process = getattr(starting, "_process", None)
    return there.placement.gpu_pid or (process.pid if process is not None else None)


def next_turn(there: Party, live: Live) -> list[int]:
    """The prompt of a turn that follows an answer."""
    there.outcome(live)
    more = "<end_of_turn>\n<start_of_turn>user\n[[count: 9]]<end_of_turn>\n<start_of_turn>model\n"
    known = live.prompt + [token.token for token in live.tokens]
    return known + tokenizer.get_tokenizer().encode(more, special=True)


def test_what_was_said_on_the_card_is_gone_on_from_on_the_cpu_and_there_again(tmp_path: Path) -> None:
    """Nothing of a conversation is computed again after a move in either direction."""
    with party(tmp_path) as there:
        there.placement.hold("s", 600.0)
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
        live = there.ask("[[delay: 2]] [[count: 150]]")
        there.until(lambda: there.keeper.is_wanted)
        there.keeper.grant()
        there.until(lambda: there.keeper.lease is None)
        assert "another process" in there.placement.describe()["reason"]
        assert there.text(live) == counted(150)
        assert {token.device for token in live.tokens} == {"cpu"}


def test_the_worker_stops_while_the_card_is_in_use(tmp_path: Path) -> None:
    """``party`` looks for what is left."""
    with party(tmp_path) as there:
        lives = [there.ask("[[delay: 5]] [[count: 900]]") for _ in range(3)]
        there.until(lambda: all(live.tokens for live in lives))
        there.to_card()
        there.placement.release_all()
        assert {there.outcome(live).fate for live in lives} == {Fate.RELEASED}
    assert there.keeper.released
