"""`status`: its picture for people and for programs, live in a terminal, and without a service."""

import json
import subprocess
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chat.management.service_status import GpuStatus, ModelStatus, QueueStatus, RunningAnswer, ServiceStatus
from chat.management.status_text import duration, status_lines
from tests.commands.driver import Driver, finished, interrupt
from tests.commands.test_interactive import CTRL_C, TerminalChat
from tests.live_stack import LiveStack

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def gpu(**changes: object) -> GpuStatus:
    facts: dict[str, object] = {"name": "H200", "holder": None, "since": None, "waiting": [], "reason": ""}
    return GpuStatus(**{**facts, "vram_used_mb": None, "vram_total_mb": None, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "GPU     H200, not leased"),
        (
            {"holder": "transcription", "since": NOW - timedelta(seconds=130), "waiting": ["gemma-service", "x"]},
            "GPU     H200, held by transcription since 11:57:50 (2 min); waiting: gemma-service, x",
        ),
        ({"holder": "a\x1b[2J\nb"}, "GPU     H200, held by a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_who_has_the_gpu(changes: dict[str, object], line: str) -> None:
    assert [*status_lines(ServiceStatus(time=NOW, problem="", gpu=gpu(**changes)))] == [line]


def test_memory_and_the_reason_for_being_elsewhere() -> None:
    status = ServiceStatus(time=NOW, problem="", gpu=gpu(reason="held by others", vram_total_mb=143_000))
    assert [*status_lines(status)][1:] == ["        held by others", "        memory ? of 143,000 MB"]


def test_the_first_line_says_whether_it_works() -> None:
    model = ModelStatus(name="m", is_loaded=False, device="cpu", context_size=4096, worker_pid=7)
    status = ServiceStatus(time=NOW, problem="The model is being loaded.", model=model)
    assert [*status_lines(status)] == ["The model is being loaded.", "m on the CPU, context 4,096, worker 7"]


def test_queue_and_answers() -> None:
    answer = RunningAnswer(
        id=uuid.UUID(int=1), owner="user:" + "9" * 40, priority="batch", age_s=2.0, prompt_tokens=10, tokens=30
    )
    queue = QueueStatus(running=1, waiting=3, waiting_batch=2, longest_wait_s=100)
    lines = [*status_lines(ServiceStatus(time=NOW, problem="", queue=queue, answers=[answer]))]
    assert lines[0] == "Queue   1 running, 3 waiting (2 of a batch), the longest for 2 min"
    assert lines[-1].split() == [str(answer.id), "user:" + "9" * 14 + "…", "2", "s", "10", "30", "15.0"]


@pytest.mark.parametrize(("secs", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (9000, "2.5 h")])
def test_durations(secs: float, text: str) -> None:
    assert duration(secs) == text


def test_a_running_service(driver: Driver) -> None:
    process = driver.start("ask", "[[delay: 50]] [[count: 4000]]", "--owner", driver.owner, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.read(8)
        status, output = finished(driver.start("status", "--json"))
        (answer,) = (one for one in json.loads(output)["answers"] if one["owner"] == driver.owner)
        assert answer["tokens"] > 0
        assert status == 0
        live = TerminalChat(driver, command=("status",), NO_COLOR="1")
        try:
            live.expect("fake-it on the CPU")
            live.expect(answer["id"])
            live.expect("Ctrl-C ends")
            assert "\x1b[3" not in live.seen
            live.type(CTRL_C)
            assert live.process.wait(30) == 0
        finally:
            live.close()
    finally:
        interrupt(process)
    assert finished(process)[0] == 130


def test_without_a_service_it_says_so(tmp_path: Path) -> None:
    stack = LiveStack(backend="fake", environment={})
    process = Driver(stack, tmp_path).start("status")
    status, output = finished(process)
    stack.clean_up()
    assert status == 1
    assert output.startswith("The service does not run")
    assert output.count("\n") == 1


@pytest.mark.parametrize(("value", "is_coloured"), [("1", False), ("", True)])
def test_an_error_has_colours_unless_no_color_is_set(driver: Driver, value: str, is_coloured: bool) -> None:
    terminal = TerminalChat(driver, command=("ask", ""), NO_COLOR=value)
    try:
        terminal.expect("the prompt is empty")
        assert ("\x1b[" in terminal.seen) == is_coloured
        assert terminal.process.wait(30) == 1
    finally:
        terminal.close()
