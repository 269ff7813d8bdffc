"""A client that leaves a stream: its answer is stopped after the grace period, and its text so far is stored."""

import signal
import subprocess
import time

import httpx
import pytest

from tests.live_stack import LiveStack

pytestmark = pytest.mark.real_model


def wait_until_idle(client: httpx.Client, within_secs: float) -> float:
    """Seconds until /health showed no active generation."""
    began = time.monotonic()
    while time.monotonic() - began < within_secs:
        if client.get("/health").json()["active"] == 0:
            return time.monotonic() - began
        time.sleep(0.1)
    raise AssertionError(f"still active after {within_secs} s")


def test_curl_ended_by_ctrl_c(real_stack: LiveStack) -> None:
    body = '{"messages": [{"role": "user", "content": "Count."}], "max_tokens": 4000, "ignore_eos": true, "stop": []}'
    command = ["curl", "-sN", f"{real_stack.url}/chat/stream", "-H", "Content-Type: application/json", "-d", body]
    curl = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert curl.stdout is not None
    seen = [curl.stdout.readline() for _ in range(60)]
    curl.send_signal(signal.SIGINT)
    curl.wait(timeout=10)
    assert any('"token"' in line for line in seen)

    with httpx.Client(base_url=real_stack.url, timeout=30) as client:
        # The promise is 6 s with the default grace of 5; the rest is slack for a busy machine.
        wait_until_idle(client, within_secs=15)
        conversation = client.get("/api/conversations/?limit=1").json()["results"][0]
        messages = client.get(f"/api/conversations/{conversation['id']}/messages/").json()["results"]
    answer = messages[-1]
    assert answer["role"] == "assistant"
    assert answer["status"] == "interrupted"
    assert answer["finish_reason"] == "cancelled"
    assert answer["content"].strip() != ""
