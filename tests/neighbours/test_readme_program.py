"""The README's five lines beside a running service, with no address given: they share the GPU, and nobody is harmed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.live import count
from tests.live_stack import PROJECT, LiveStack, running_stack
from tests.neighbours.lending import wait_for
from tests.neighbours.readme_program import printed_program
from tests.private_environment import clean_environment

ENVIRONMENT = {
    "GEMMA_GPU": "simulated",
    "GPU_LINGER_SECS": "0.5",
    "GPU_MIN_HOLD_SECS": "0.5",
    "JSON_PATIENCE_SECS": "60",
}


class Program:
    """The program as a process, in the project's folder and with no variable of ours."""

    def __init__(self, folder: Path, addresses: Path) -> None:
        self._folder = folder
        self.is_loaded = (folder / "loaded").exists
        self.output, self.errors = folder / "output", folder / "errors"
        environment = clean_environment() | {"GPU_ADDRESS_FILE": str(addresses), "PYTHONPATH": ""}
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            command = [sys.executable, "-m", "tests.neighbours.readme_program", str(folder)]
            self.process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=output, stderr=errors)

    @property
    def events(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.output.read_text().splitlines()]

    def end(self) -> int:
        (self._folder / "stop").touch()
        return self.process.wait(20)


@pytest.fixture
def addresses(tmp_path: Path) -> Path:
    return tmp_path / "own" / "addresses.json"


@pytest.fixture
def stack(addresses: Path) -> Iterator[LiveStack]:
    with running_stack(**ENVIRONMENT, GPU_ADDRESS_FILE=str(addresses)) as stack:
        yield stack


@pytest.fixture
def program(stack: LiveStack, tmp_path: Path, addresses: Path) -> Iterator[Program]:
    program = Program(tmp_path, addresses)
    yield program
    program.process.kill()
    program.process.wait(5)


def runs_on_gpu(stack: LiveStack) -> bool:
    return any("gemma-runner gpu" in title for title in stack.titles().values())


def test_it_shares_the_gpu_and_goes_on(stack: LiveStack, program: Program) -> None:
    wait_for(lambda: program.events == ["load"])
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        n_both = n_looks = 0
        with client.stream("POST", "/chat/stream", json=count(300, delay_ms=20)) as answer:
            lines: list[str] = []
            for line in answer.iter_lines():
                lines.append(line)
                if line.startswith("data: ") and len(lines) % 5 == 0:
                    n_looks += 1
                    n_both += program.is_loaded() and runs_on_gpu(stack)
        last = json.loads(next(line for line in reversed(lines) if line.startswith("data: "))[6:])
        assert "gpu" in [run["device"] for run in last["devices"]]
        assert (n_both, n_looks > 20) == (0, True)
        wait_for(lambda: program.events == ["load", "unload", "load"])
        assert not runs_on_gpu(stack)
        assert client.get("/gpu/state").json()["state"] == "transcription"
        assert "tenants: 1" in client.get("/health").json()["gpu_coordinator"]["detail"]
        time.sleep(1.0)  # for some work after the pause
        assert program.end() == 0
        assert program.errors.read_text() == ""
        assert program.events[-1] == "unload"
        assert int(program.events[-2].removeprefix("units ")) > 0
        # Nobody is paused afterwards, and nobody is waited for.
        answer = client.post("/chat", json=count(200, delay_ms=20)).json()
        assert "gpu" in [run["device"] for run in answer["devices"]]
        assert answer["gpu_wait_time"] < 10.0
    assert not [line for line in stack.output.splitlines() if "WARNING" in line or "ERROR" in line]


def test_the_block_is_the_one_of_five_lines() -> None:
    lines = [line for line in printed_program().splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("from")]) <= 5
    assert os.linesep.join(lines).count("redis") == 0  # no address: `serve` has left it where the library looks
