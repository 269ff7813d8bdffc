"""Chats while no worker process runs: their deadlines and cancels hold all the same."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.api.live import data_lines, say
from tests.live_stack import LiveStack, running_stack, wait_until

TIMEOUT_SECS = 3
MARGIN_SECS = 4.0  # a round of the reaper and a look at the log, on a busy machine


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    """A service whose worker has been killed and whose supervisor cannot start it again."""
    with running_stack(STREAM_GRACE_SECS="30", JSON_PATIENCE_SECS="60") as stack:
        supervisor, worker = psutil.Process(stack.pid), stack.process("gemma-worker")
        children = worker.children(recursive=True)
        supervisor.send_signal(signal.SIGSTOP)
        worker.kill()
        wait_until(lambda: worker.status() == psutil.STATUS_ZOMBIE, timeout_secs=10, what="the worker's end")
        psutil.wait_procs(children, timeout=10)
        yield stack
        supervisor.send_signal(signal.SIGCONT)


@pytest.fixture
def client(stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        yield client


def assert_in_time(started: float) -> None:
    assert TIMEOUT_SECS - 0.1 < time.monotonic() - started < TIMEOUT_SECS + MARGIN_SECS


@pytest.mark.parametrize("path", ["/chat", "/generate"])
def test_a_whole_answer_times_out(client: httpx.Client, path: str) -> None:
    body = say("hi", store=False) if path == "/chat" else {"prompt": "hi"}
    started = time.monotonic()
    response = client.post(path, json=body | {"timeout_s": TIMEOUT_SECS})
    assert_in_time(started)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")


def test_a_stream_times_out(client: httpx.Client) -> None:
    started = time.monotonic()
    with client.stream("POST", "/chat/stream", json=say("hi", timeout_s=TIMEOUT_SECS)) as response:
        lines = list(data_lines(response))
    assert_in_time(started)
    assert lines[-1]["done"]
    assert lines[-1]["error"]["code"] == "timeout"


def test_a_cancel_ends_a_stream(client: httpx.Client) -> None:
    with client.stream("POST", "/chat/stream", json=say("hi")) as response:
        lines = response.iter_lines()
        first = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
        client.post(f"/api/generations/{first['generation_id']}/cancel").raise_for_status()
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert rest[-1]["done"]
    assert rest[-1]["finish_reason"] == "cancelled"


OPENAI_CHAT: dict[str, object] = {"messages": [{"role": "user", "content": "hi"}], "store": False}
WHOLE: dict[str, dict[str, object]] = {
    "/v1/chat/completions": OPENAI_CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi", "store": False},
    "/v1/messages": {"model": "", "max_tokens": 5, "messages": OPENAI_CHAT["messages"]},
}


def test_other_interfaces_time_out_in_their_form(client: httpx.Client) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda path: client.post(path, json=WHOLE[path] | {"timeout_s": TIMEOUT_SECS}), WHOLE))
    assert_in_time(started)
    for path, answer in zip(WHOLE, answers, strict=True):
        assert answer.status_code == 504, (path, answer.text)
        assert "timeout_s" in answer.json()["error"]["message"]


def test_their_streams_time_out(client: httpx.Client) -> None:
    def last_events(path: str) -> str:
        body = WHOLE[path] | {"timeout_s": TIMEOUT_SECS, "stream": True}
        return client.post(path, json=body).text

    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        texts = list(pool.map(last_events, WHOLE))
    assert_in_time(started)
    assert ["timeout_s" in text for text in texts] == [True] * len(texts), texts


def test_a_socket_times_out(stack: LiveStack) -> None:
    started = time.monotonic()
    with connect(f"{stack.url.replace('http', 'ws')}/ws/chat") as socket:
        socket.send(json.dumps({"type": "chat"} | say("hi", timeout_s=TIMEOUT_SECS)))
        lines = [json.loads(socket.recv())]
        while not lines[-1].get("done"):
            lines.append(json.loads(socket.recv()))
    assert_in_time(started)
    assert lines[-1]["error"]["code"] == "timeout"
