"""The whole service with a simulated GPU: an answer moves to it and back, and every interface reports the same."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from tests.live_stack import LiveStack, wait_until

CARD = {"GEMMA_GPU": "simulated", "GPU_MIN_HOLD_SECS": "0", "GPU_LINGER_SECS": "600"}
N = 400


def body(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 4000}


def counted(n: int) -> str:
    return "".join(f"{number} " for number in range(1, n + 1))


def health(stack: LiveStack) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{stack.url}/health", timeout=10).json()
    return found


def test_an_answer_moves_to_the_card_and_back_and_every_interface_says_so(
    live_stack: Callable[..., LiveStack],
) -> None:
    stack = live_stack(**CARD)
    states, text, last = asked_and_moved(stack)
    assert text == counted(N)
    assert {"waiting_for_gpu", "loading", "yielding"} <= set(states)
    assert [run["device"] for run in last["devices"]][:3] == ["cpu", "gpu", "cpu"]
    assert sum(run["tokens"] for run in last["devices"]) == last["usage"]["completion_tokens"]
    assert last["timings"]["restore"] > 0
    assert last["timings"]["load"] > 0
    warm = httpx.post(f"{stack.url}/warmup", timeout=60).json()
    assert (warm["status"], warm["model_on_gpu"]) == ("ready", True), warm
    state = health(stack)
    assert state["model_on_gpu"]
    assert 0 < state["vram_used_mb"] < state["vram_total_mb"], "the simulated runner's process"
    assert state["gpu_layers"] > 0
    assert "simulated" in state["gpu"]["name"]
    answer = httpx.post(f"{stack.url}/chat", json=body("hello"), timeout=60).json()
    assert answer["device"] == "gpu"
    runner = stack.process("gemma-runner gpu (simulated)")
    stack.process("gemma-worker").kill()
    wait_until(lambda: not runner.is_running(), timeout_secs=10, what="the card's runner dies with its worker")
    again = httpx.post(f"{stack.url}/chat", json=body("hello"), timeout=60).json()
    assert again["response"] == answer["response"]
    assert stack.stop() == 0


def asked_and_moved(stack: LiveStack) -> tuple[list[str], str, dict[str, Any]]:
    """States, text and last line of an answer during which the model was sent back to the CPU."""
    states: list[str] = []
    text, last = "", {}
    is_sent_back = False
    request = body(f"[[delay: 10]] [[count: {N}]]")
    with httpx.stream("POST", f"{stack.url}/chat/stream", json=request, timeout=60) as response:
        for line in response.iter_lines():
            if not line.startswith("data: "):
                continue
            last = json.loads(line[6:])
            text += last["token"]
            states += [last["status"]["state"]] if last.get("status") else []
            if len(text) % 100 == 99 and not is_sent_back and health(stack)["model_on_gpu"]:
                is_sent_back = True
                assert httpx.post(f"{stack.url}/move-to-cpu", timeout=30).json()["model_on_gpu"] is False
    return states, text, last
