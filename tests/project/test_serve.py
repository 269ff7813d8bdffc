"""`manage.py serve` as an operator meets it: real processes, the scripted model."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from tests.live_stack import PROJECT, LiveStack, running_stack, wait_until

MakeStack = Callable[..., LiveStack]
TITLES = ["gemma-runner cpu", "gemma-valkey", "gemma-web", "gemma-worker"]
CHAT = {"messages": [{"role": "user", "content": "[[say: still here]]"}]}


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def shared() -> Iterator[LiveStack]:
    """One service for the tests that leave it running."""
    with running_stack() as stack:
        yield stack


def chat(stack: LiveStack) -> str:
    response = httpx.post(f"{stack.url}/chat", json=CHAT, timeout=30)
    assert response.status_code == 200, response.text
    text: str = response.json()["response"]
    return text


def test_it_says_what_is_where_and_its_processes_have_names(shared: LiveStack) -> None:
    stack = shared
    assert f"serve: ready: {stack.url}" in stack.output
    for words in ("database  sqlite3", f"redis     unix://{stack.data_dir}/run/valkey.sock", str(stack.data_dir)):
        assert words in stack.output
    for title in TITLES:
        assert stack.process(title).is_running()
    assert psutil.Process(stack.pid).cmdline()[0].startswith("gemma-serve")
    assert chat(stack) == "still here"
    # A normal start prints nothing that looks like an error.
    assert not re.search("error|warning|traceback", stack.output, flags=re.IGNORECASE), stack.output


def test_no_one_but_loopback_is_listened_to(shared: LiveStack) -> None:
    stack = shared
    listening = {
        connection.laddr.ip
        for process in [psutil.Process(stack.pid), *stack.processes()]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_leaves_nothing_within_ten_seconds(live_stack: MakeStack, number: signal.Signals) -> None:
    stack = live_stack()
    processes = stack.processes()
    started = time.monotonic()
    os.kill(stack.pid, number)
    assert stack.wait(10) == 0
    assert time.monotonic() - started < 10
    assert alive(processes) == []
    assert "serve: stopped" in stack.output
    assert ": killed" not in stack.output  # the words of the supervisor


def test_a_stop_with_running_answers_stays_within_its_time(live_stack: MakeStack) -> None:
    stack = live_stack(GEMMA_PARALLEL="2")
    body = {"messages": [{"role": "user", "content": "[[delay: 200]][[count: 2000]]"}], "max_tokens": 4000}
    with httpx.stream("POST", f"{stack.url}/chat/stream", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        wait_until(lambda: '"token": "' in next(lines), timeout_secs=20, what="the answer runs")
        processes = stack.processes()
        started = time.monotonic()
        os.kill(stack.pid, signal.SIGTERM)
        assert stack.wait(12) == 0
        assert time.monotonic() - started < 10
    assert alive(processes) == []
    # A stop is no failure, whichever reader was connected.
    assert "Traceback" not in stack.output


def test_a_supervisor_killed_with_9_leaves_nothing(live_stack: MakeStack) -> None:
    stack = live_stack()
    processes = stack.processes()
    assert len(processes) >= len(TITLES)
    os.kill(stack.pid, signal.SIGKILL)
    stack.wait()
    wait_until(lambda: alive(processes) == [], timeout_secs=5, what=f"nothing is left of {processes}")


def test_after_a_kill_it_starts_again_with_everything_it_had(live_stack: MakeStack) -> None:
    stack = live_stack()
    chat(stack)
    os.kill(stack.pid, signal.SIGKILL)
    stack.wait()
    stack.start()
    conversations = httpx.get(f"{stack.url}/api/conversations/").json()
    assert conversations["count"] == 1
    assert chat(stack) == "still here"


@pytest.mark.parametrize("title", TITLES)
def test_a_killed_process_comes_back(shared: LiveStack, title: str) -> None:
    killed = shared.process(title)
    killed.kill()
    wait_until(
        lambda: any(pid != killed.pid and words.startswith(title) for pid, words in shared.titles().items()),
        timeout_secs=30,
        what=f"{title} is back\n{shared.output}",
    )
    # The others reconnect by themselves: within a moment chat works as before.
    wait_until(lambda: answers(shared), timeout_secs=30, what=f"chat works again\n{shared.output}")
    if title != "gemma-runner cpu":
        assert f"serve: {title} ended (signal SIGKILL); starting it again in " in shared.output


def answers(stack: LiveStack) -> bool:
    try:
        return httpx.post(f"{stack.url}/chat", json=CHAT, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def test_callers_wait_while_the_web_process_comes_back(shared: LiveStack) -> None:
    stack = shared
    web = stack.process("gemma-web")
    web.kill()
    web.wait(5)
    # The supervisor holds the listening socket: no connection is refused in between.
    assert httpx.get(f"{stack.url}/health", timeout=20).status_code == 200


def test_a_second_serve_on_the_same_data_says_so(shared: LiveStack) -> None:
    stack = shared
    second = stack.run("serve")
    assert second.returncode == 1
    assert f"the data directory {stack.data_dir} is in use by another `serve` (process {stack.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert chat(stack) == "still here"


def test_a_taken_port_says_so(live_stack: MakeStack) -> None:
    stack = live_stack(start=False)
    with socket.create_server(("127.0.0.1", stack.port)):
        done = stack.run("serve")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{stack.port}" in done.stderr
    assert "GEMMA_PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_redis_that_is_not_there_is_named_without_its_password(live_stack: MakeStack) -> None:
    stack = live_stack(start=False, REDIS_URL="redis://:hunter2@127.0.0.1:1/0")
    done = stack.run("serve")
    assert done.returncode == 1
    assert "redis://***@127.0.0.1:1/0" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_not_there_is_named(live_stack: MakeStack) -> None:
    stack = live_stack(start=False, DATABASE_URL="postgres://gemma:hunter2@127.0.0.1:1/chats")
    done = stack.run("serve")
    assert done.returncode == 1
    assert "the database (DATABASE_URL, GEMMA_DATA_DIR) cannot be used" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_during_the_start_ends_it_cleanly(live_stack: MakeStack) -> None:
    stack = live_stack(start=False)
    stack.start(wait=False)
    wait_until(lambda: "waiting for a first token" in stack.output, timeout_secs=30, what="the parts are started")
    processes = stack.processes()
    os.kill(stack.pid, signal.SIGINT)
    assert stack.wait(10) == 1
    assert alive(processes) == []
    assert "Traceback" not in stack.output


@pytest.mark.slow
def test_a_data_directory_too_deep_for_a_socket_works(live_stack: MakeStack) -> None:
    stack = live_stack(start=False)
    deep = stack.data_dir / ("d" * 100)
    stack.environment["GEMMA_DATA_DIR"] = str(deep)
    stack.start()
    assert chat(stack) == "still here"
    assert (deep / "valkey").is_dir()
    assert stack.stop() == 0


def test_the_probe_succeeds_with_a_running_service(shared: LiveStack) -> None:
    wait_until(lambda: answers(shared), timeout_secs=30, what="chat works")
    done = shared.run("probe", "--url", shared.url)
    assert done.returncode == 0, done.stderr
    assert "first token after" in done.stdout


@pytest.mark.slow
def test_a_probe_does_not_wait_for_a_place_when_answers_are_being_given(live_stack: MakeStack) -> None:
    """As after a restart: unfinished answers continue first, and `serve` must not report that as a failed start."""
    stack = live_stack(GEMMA_PARALLEL="1")
    body = {"messages": [{"role": "user", "content": "[[delay: 100]][[count: 2000]]"}], "max_tokens": 4000}
    with httpx.stream("POST", f"{stack.url}/chat/stream", json=body, timeout=30) as stream:
        lines = stream.iter_lines()
        wait_until(lambda: '"token": "' in next(lines), timeout_secs=20, what="the answer runs")
        done = stack.run("probe", "--timeout-secs", "20")
        queue_depth = httpx.get(f"{stack.url}/health").json()["queue_depth"]
    assert (done.returncode, queue_depth) == (0, 0), done.stderr


@pytest.mark.slow
def test_the_probe_fails_without_a_service(live_stack: MakeStack) -> None:
    stack = live_stack(start=False)
    assert stack.run("migrate").returncode == 0
    done = stack.run("probe", "--timeout-secs", "2")
    assert done.returncode == 1
    assert "no token" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_parts_can_be_started_alone(live_stack: MakeStack) -> None:
    """As the containers do: Redis from elsewhere, web migrates, the worker waits for it."""
    stack = live_stack(start=False, REDIS_URL=os.environ["REDIS_URL"])
    parts = [start_part(stack, "worker"), start_part(stack, "web", "--migrate")]
    try:
        wait_until(lambda: answers(stack), timeout_secs=60, what="the two parts answer together")
    finally:
        for part in parts:
            part.send_signal(signal.SIGTERM)
        for part in parts:
            part.wait(15)


def start_part(stack: LiveStack, *command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, str(PROJECT / "manage.py"), *command], env=stack.environment)


def test_every_part_is_documented_on_the_command_line(live_stack: MakeStack) -> None:
    stack = live_stack(start=False)
    for command in ("serve", "web", "worker", "probe"):
        text = " ".join(stack.run(command, "--help").stdout.split())
        assert "manage.py" in text or "Asks the running service" in text
