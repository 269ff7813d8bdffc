"""The runner as a process: its start, every kind of end, and its reports to the parent."""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from inference.engine.backends.fake import FakeVocabulary
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.config import Device, EngineConfig
from inference.engine.errors import RunnerStartError
from inference.engine.process import runner
from inference.engine.process.client import HAS_LEFT, PROJECT_ROOT, RunnerExit, RunnerProcess, describe_returncode
from inference.engine.process.deadline import Deadline, wait_until_passed
from inference.engine.protocol.frames import Cancel, Emission, Ended, FromRunner, PrefillProgress, Ready, Step, Submit
from tests.engine.harness import fake_config, params, turn

DEADLINE_SECS = 60.0


class Watched:
    """A runner with all of its frames, and events to wait for."""

    def __init__(self, config: EngineConfig, title: str = "gemma-runner test", deadline: Path | None = None) -> None:
        self.frames: list[FromRunner] = []
        self.exits: list[RunnerExit] = []
        self._changed = threading.Condition()
        self.runner = RunnerProcess(
            config, title=title, on_frame=self._on_frame, on_exit=self._on_exit, deadline=deadline
        )

    def _on_frame(self, frame: FromRunner) -> None:
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()

    def _on_exit(self, exit_: RunnerExit) -> None:
        with self._changed:
            self.exits.append(exit_)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_SECS), f"frames: {self.frames[-5:]}, exits: {self.exits}"

    def ask(self, sequence_id: str, text: str, **changes: object) -> None:
        prompt = turn(FakeVocabulary(), text)
        self.runner.send(Submit(sequence_id=sequence_id, prompt=prompt, params=params(**changes)))

    def has_tokens(self, sequence_id: str) -> bool:
        return any(
            each.sequence_id == sequence_id
            for frame in self.frames
            if isinstance(frame, Step)
            for each in frame.emissions
        )

    def ended(self, sequence_id: str) -> Ended | None:
        ends = [frame for frame in self.frames if isinstance(frame, Ended) and frame.sequence_id == sequence_id]
        return ends[0] if ends else None

    def emissions(self, sequence_id: str) -> list[Emission]:
        steps = [frame for frame in self.frames if isinstance(frame, Step)]
        return [each for step in steps for each in step.emissions if each.sequence_id == sequence_id]

    def text(self, sequence_id: str) -> str:
        return "".join(each.text for each in self.emissions(sequence_id))


@pytest.fixture
def watched() -> Iterator[Watched]:
    started = Watched(fake_config())
    started.runner.start()
    yield started
    started.runner.stop(5)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECS
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} still lives"
        time.sleep(0.02)


def test_a_runner_says_what_it_holds_answers_and_stops() -> None:
    watched = Watched(fake_config(context_size=2048))
    ready = watched.runner.start()
    assert (ready.model_name, ready.context_size, ready.trained_context) == ("fake-it", 2048, 131_072)
    assert ready.load_ms > 0
    assert ready.warmup_ms > 0
    assert psutil.pid_exists(watched.runner.pid)
    watched.ask("a", "[[say: good morning]]")
    watched.wait(lambda: watched.ended("a") is not None)
    assert watched.text("a") == "good morning"
    assert not any(isinstance(frame, Ready) for frame in watched.frames), "Ready is what start returns"
    watched.runner.stop(10)
    assert not watched.runner.alive
    assert [(exit_.returncode, exit_.requested) for exit_ in watched.exits] == [(0, True)]


def test_operators_recognise_it(watched: Watched) -> None:
    assert psutil.Process(watched.runner.pid).cmdline()[0] == "gemma-runner test"


def test_frames_of_several_sequences_come_in_order(watched: Watched) -> None:
    for name in "abcd":
        watched.ask(name, "[[count: 30]]")
    watched.wait(lambda: all(watched.ended(name) is not None for name in "abcd"))
    for name in "abcd":
        assert watched.text(name) == "".join(f"{number} " for number in range(1, 31))


def test_a_cancel_takes_effect_within_a_step(watched: Watched) -> None:
    watched.ask("a", "[[delay: 20]][[count: 9999]]", max_tokens=100_000)
    watched.wait(lambda: watched.has_tokens("a"))
    n_before = len(watched.text("a"))
    watched.runner.send(Cancel("a"))
    watched.wait(lambda: watched.ended("a") is not None)
    ended = watched.ended("a")
    assert ended is not None
    assert ended.reason == "cancelled"
    assert len(watched.text("a")) <= n_before + 10


def test_a_cancel_in_the_middle_of_a_prompt(watched: Watched) -> None:
    watched.ask("a", "[[delay: 20]]" + "x" * 3000)
    watched.wait(lambda: any(isinstance(frame, PrefillProgress) for frame in watched.frames))
    watched.runner.send(Cancel("a"))
    watched.wait(lambda: watched.ended("a") is not None)
    assert not watched.has_tokens("a")


def test_kill_9_is_told_exactly_once(watched: Watched) -> None:
    watched.ask("a", "[[delay: 5]][[count: 9999]]", max_tokens=100_000)
    watched.wait(lambda: watched.has_tokens("a"))
    os.kill(watched.runner.pid, signal.SIGKILL)
    watched.wait(lambda: bool(watched.exits))
    watched.ask("b", "nobody listens")
    watched.runner.stop(1)
    assert [(exit_.returncode, exit_.requested) for exit_ in watched.exits] == [(-9, False)]
    assert watched.exits[0].reason == "killed by SIGKILL"
    assert not watched.runner.alive


def test_an_abort_in_native_code_is_told(watched: Watched) -> None:
    watched.ask("a", "[[abort]]")
    watched.wait(lambda: bool(watched.exits))
    assert watched.exits[0].reason == "killed by SIGABRT"


def test_kill_is_a_requested_end(watched: Watched) -> None:
    watched.runner.kill()
    watched.wait(lambda: bool(watched.exits))
    assert watched.exits == [RunnerExit(watched.runner.pid, -9, requested=True)]


def test_a_runner_that_does_not_stop_is_killed(watched: Watched) -> None:
    os.kill(watched.runner.pid, signal.SIGSTOP)
    watched.runner.stop(0.2)
    assert [(exit_.returncode, exit_.requested) for exit_ in watched.exits] == [(-9, True)]


def test_stop_does_not_wait_for_sequences(watched: Watched) -> None:
    watched.ask("a", "[[delay: 5]][[count: 9999]]", max_tokens=100_000)
    watched.wait(lambda: watched.has_tokens("a"))
    watched.runner.stop(10)
    assert watched.exits[0].returncode == 0
    assert watched.ended("a") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_group_are_the_parents_affair(watched: Watched, number: signal.Signals) -> None:
    os.kill(watched.runner.pid, number)
    watched.ask("a", "[[say: still here]]")
    watched.wait(lambda: watched.ended("a") is not None)
    assert watched.text("a") == "still here"


def test_a_frame_that_nobody_takes_ends_the_runner() -> None:
    exits: list[RunnerExit] = []
    gone = threading.Event()

    def fail(_frame: FromRunner) -> None:
        raise LookupError("no such generation")

    def on_exit(exit_: RunnerExit) -> None:
        exits.append(exit_)
        gone.set()

    runner = RunnerProcess(fake_config(), on_frame=fail, on_exit=on_exit)
    runner.start()
    runner.send(Submit(sequence_id="a", prompt=[5], params=params()))
    assert gone.wait(DEADLINE_SECS)
    assert [exit_.returncode for exit_ in exits] == [-9]


PARENT = """
import sys, threading
from inference.engine.process.client import RunnerProcess
from tests.engine.harness import fake_config
runner = RunnerProcess(fake_config(), on_frame=print, on_exit=print)
runner.start()
print(runner.pid, flush=True)
threading.Event().wait()
"""


def test_a_runner_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(pid)


def test_a_runner_goes_when_its_deadline_is_extended_no_more(tmp_path: Path) -> None:
    deadline = Deadline(tmp_path / "deadline")
    watched = Watched(fake_config(), deadline=deadline.path)
    watched.runner.start()
    watched.ask("a", "[[delay: 5]][[count: 9999]]", max_tokens=100_000)
    began = time.monotonic()
    while time.monotonic() < began + 6.0:
        deadline.extend(time.monotonic() + 5.0)
        time.sleep(0.2)
    assert watched.exits == []
    until = time.monotonic() + 0.5
    deadline.extend(until)  # the thread may sleep until the former one
    watched.wait(lambda: bool(watched.exits))
    assert time.monotonic() > until
    assert [(each.has_left, each.requested) for each in watched.exits] == [(True, False)]


@pytest.mark.parametrize("is_answering", [False, True])
def test_a_suspended_runner_is_killed_at_its_deadline(tmp_path: Path, is_answering: bool) -> None:
    deadline = Deadline(tmp_path / "deadline")
    until = time.monotonic() + 4.0
    deadline.extend(until)
    watched = Watched(fake_config(), deadline=deadline.path)
    watched.runner.start()
    if is_answering:
        watched.ask("a", "[[delay: 5]][[count: 9999]]", max_tokens=100_000)
        watched.wait(lambda: len(watched.frames) > 3)
    psutil.Process(watched.runner.pid).suspend()
    watched.wait(lambda: bool(watched.exits))
    assert time.monotonic() > until
    assert [(each.returncode, each.has_left, each.requested) for each in watched.exits] == [(-9, True, False)]


@pytest.mark.parametrize("content", [None, b"", b"damaged!!"])
def test_a_deadline_that_cannot_be_read_has_passed(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "deadline"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunnerStartError, match="its deadline was not extended in time") as raised:
        Watched(fake_config(), deadline=path).runner.start()
    assert raised.value.code == HAS_LEFT


@pytest.mark.parametrize("content", [math.nan, -math.inf, 0.0, b"1234567", b"123456789", None])
def test_a_deadline_that_is_no_time_to_come_has_passed(tmp_path: Path, content: float | bytes | None) -> None:
    path = tmp_path / "deadline"
    if isinstance(content, float):
        Deadline(path).extend(content)
    elif content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    waiting = threading.Thread(target=wait_until_passed, args=(path,), daemon=True)
    waiting.start()
    waiting.join(DEADLINE_SECS)
    assert not waiting.is_alive()


def test_a_runner_that_still_loads_keeps_it_too(tmp_path: Path) -> None:
    deadline = Deadline(tmp_path / "deadline")
    deadline.extend(time.monotonic() + 1.0)
    config = msgspec.structs.replace(fake_config(), device=Device.SIMULATED, load_delay_ms=60_000.0)
    with pytest.raises(RunnerStartError, match="its deadline was not extended in time"):
        Watched(config, deadline=deadline.path).runner.start()


def test_a_runner_whose_parent_closes_the_pair_goes_too(watched: Watched) -> None:
    connection = watched.runner._connection
    assert connection is not None
    with socket.socket(fileno=os.dup(connection.fileno())) as pair:
        pair.shutdown(socket.SHUT_WR)
    watched.wait(lambda: bool(watched.exits))
    assert watched.exits == [RunnerExit(watched.runner.pid, 0, requested=False)]


# ---- a start that fails ----


def start_error(config: EngineConfig) -> RunnerStartError:
    watched = Watched(config)
    with pytest.raises(RunnerStartError) as caught:
        watched.runner.start()
    assert not watched.runner.alive
    assert watched.exits == [], "a runner that never was ready has no end to tell"
    return caught.value


def llama_config(path: Path) -> EngineConfig:
    return EngineConfig(model_path=path, context_size=512)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    error = start_error(llama_config(tmp_path / "absent.gguf"))
    assert error.code == "model_file"
    assert "absent.gguf does not exist" in str(error)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>404</html>")
    error = start_error(llama_config(path))
    assert (error.code, "not a GGUF file" in str(error)) == ("model_file", True)


@pytest.mark.real_model
def test_a_sound_header_over_an_unknown_model_is_refused_by_llama_cpp(model_path: Path, tmp_path: Path) -> None:
    content = bytearray(model_path.read_bytes())
    at = content.index(b"gemma3", content.index(b"general.architecture"))
    content[at : at + 6] = b"gemmaX"
    path = tmp_path / "unknown.gguf"
    path.write_bytes(content)
    error = start_error(llama_config(path))
    assert error.code == "model_file"
    assert "refused by llama.cpp" in str(error)


def test_the_vocabulary_is_looked_through_before_anybody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(FakeVocabulary, "eog_tokens", property(lambda vocabulary: looks.append(1)))
    runner._warm_up(FakeBackend(n_cells=64, n_slots=2, batch_size=8))
    assert looks


def test_death_before_ready_names_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(fake_config())
    popen = subprocess.Popen

    def die(_command: list[str], **options: object) -> "subprocess.Popen[bytes]":
        return popen(["/bin/sh", "-c", "kill -ILL $$"], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("inference.engine.process.client.subprocess.Popen", die)
    with pytest.raises(RunnerStartError, match="built for another CPU; rebuild it") as caught:
        watched.runner.start()
    assert caught.value.code == "runner_died"


def test_a_start_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(fake_config())
    popen = subprocess.Popen

    def hang(_command: list[str], **options: object) -> "subprocess.Popen[bytes]":
        return popen(["/bin/sleep", "60"], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("inference.engine.process.client.subprocess.Popen", hang)
    with pytest.raises(RunnerStartError, match=r"not ready after 0 s") as caught:
        watched.runner.start(timeout_secs=0.2)
    assert caught.value.code == "timeout"
    assert not watched.runner.alive


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exit status 0"),
        (1, "exit status 1"),
        (-9, "killed by SIGKILL"),
        (-11, "killed by SIGSEGV"),
        (-4, "SIGILL: llama-cpp-python was built for another CPU; rebuild it"),
        (-77, "killed by signal 77"),
    ],
)
def test_an_end_in_words(returncode: int, words: str) -> None:
    assert describe_returncode(returncode) == words


def test_frames_before_a_start_are_a_mistake() -> None:
    watched = Watched(fake_config())
    with pytest.raises(RuntimeError, match="was not started"):
        watched.runner.send(Cancel("a"))
    assert not watched.runner.alive


@pytest.mark.real_model
def test_the_real_model_in_its_process(model_path: Path, real_vocabulary: Vocabulary) -> None:
    watched = Watched(EngineConfig(model_path=model_path, context_size=1024, threads=1))
    ready = watched.runner.start()
    assert (ready.model_name, ready.context_size, ready.gpu_layers) == ("Gemma 3 270m", 1024, 0)
    assert ready.warmup_ms > 0
    text = "<bos>The capital of Italy is Rome. The capital of Spain is Madrid. The capital of France is"
    prompt = real_vocabulary.encode(text, special=True)
    watched.runner.send(Submit(sequence_id="a", prompt=prompt, params=params(max_tokens=4)))
    watched.wait(lambda: watched.ended("a") is not None)
    assert "Paris" in watched.text("a")
    watched.runner.stop(10)
    assert [exit_.returncode for exit_ in watched.exits] == [0]
