"""Running services: after a deletion neither the text nor its tokens are left in any file, in Redis or in tmpfs."""

import contextlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from inference.engine.backends.vocabulary import open_vocabulary
from inference.engine.config import EngineConfig
from tests.live_stack import LiveStack
from tests.purging.traces import PADDING, Traces, chat, delete, needles, waited

SECRET = "Quetzalcoatlus-4711-Bandersnatch"
OTHER = "Wolpertinger-0815-Jabberwocky"


def tell(stack: LiveStack, secret: str, **options: object) -> tuple[str, Traces]:
    """A conversation of two turns about the secret, kept on disk; its id, and where to look for it."""
    first = chat(stack, f"{PADDING}The word is {secret}", **options)
    second = chat(stack, f"Again: {secret}", conversation_id=first["conversation_id"], **options)
    ids = [str(each["generation_id"]) for each in (first, second)]
    return str(first["conversation_id"]), Traces(stack, *needles(secret), generation_ids=ids)


def assert_kept_everywhere(traces: Traces) -> None:
    """Deleted text was there to be found before."""
    for place in ("kv-cache", "gemma.sqlite3", "redis", "aof"):
        traces.wait_until_in(place)


def test_a_deleted_conversation_is_nowhere(live_stack: Callable[..., LiveStack], tmp_path: Path) -> None:
    stack = live_stack(GEMMA_GPU="off", GEMMA_SHM_DIR=str(tmp_path))
    conversation, traces = tell(stack, SECRET)
    _, others = tell(stack, OTHER)
    assert_kept_everywhere(traces)
    assert_kept_everywhere(others)
    chat(stack, f"{PADDING}{SECRET} in passing", conversation_id=conversation, store=False)
    delete(stack, f"api/conversations/{conversation}/")
    traces.wait_until_gone()
    others.wait_until_in("kv-cache")
    others.wait_until_in("gemma.sqlite3")
    status = stack.run("purge_status", "--wait-secs", "30")
    assert status.returncode == 0, status.stdout + status.stderr
    assert "done, within 30 days:   1" in status.stdout
    assert httpx.get(f"{stack.url}/health", timeout=10).status_code == 200
    stack.stop()
    stack.start()
    assert traces.find() == set(), "nothing of it was saved at the end"


@pytest.mark.slow
def test_an_answer_under_way_leaves_nothing_either(live_stack: Callable[..., LiveStack]) -> None:
    stack = live_stack(GEMMA_GPU="off")
    conversation, traces = tell(stack, SECRET)
    body = {
        "messages": [{"role": "user", "content": f"{SECRET} [[delay: 30]] [[count: 400]]"}],
        "conversation_id": conversation,
        "max_tokens": 2000,
    }
    with httpx.stream("POST", f"{stack.url}/chat/stream", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        n_lines = sum(1 for _, line in zip(range(40), lines, strict=False) if line)
        assert n_lines > 10
        delete(stack, f"api/conversations/{conversation}/")
        rest = list(lines)
    assert any('"done": true' in line for line in rest), f"its reader hears the end: {rest[-8:]}"
    traces.wait_until_gone()


@pytest.mark.slow
def test_deleted_while_no_worker_looks(live_stack: Callable[..., LiveStack]) -> None:
    """The worker stands still at the deletion and never wakes up again; the next one does the work."""
    stack = live_stack(GEMMA_GPU="off")
    conversation, traces = tell(stack, SECRET)
    assert_kept_everywhere(traces)
    worker = stack.process("gemma-worker")
    worker.suspend()
    delete(stack, f"api/conversations/{conversation}/")
    time.sleep(3)
    assert any("kv-cache" in each for each in traces.find())
    worker.kill()
    traces.wait_until_gone()


@pytest.mark.slow
def test_deleted_between_two_runs(live_stack: Callable[..., LiveStack]) -> None:
    """States lie on disk without any process; a command deletes, and the next start removes them before use."""
    stack = live_stack(GEMMA_GPU="off")
    conversation, traces = tell(stack, SECRET)
    assert_kept_everywhere(traces)
    worker = stack.process("gemma-worker")
    worker.suspend()
    delete(stack, f"api/conversations/{conversation}/")
    worker.resume()
    stack.stop()
    stack.start()
    traces.wait_until_gone()


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(2))
def test_a_worker_killed_in_the_middle_of_a_purge(live_stack: Callable[..., LiveStack], round_number: int) -> None:
    stack = live_stack(GEMMA_GPU="off")
    answers = [tell(stack, f"{SECRET}-{number}-{round_number}") for number in range(3)]
    assert_kept_everywhere(answers[0][1])
    chance = random.Random(round_number)
    for conversation, _ in answers:
        delete(stack, f"api/conversations/{conversation}/")
        time.sleep(chance.uniform(0.0, 2.5))
        with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
            stack.process("gemma-worker").send_signal(signal.SIGKILL)
    for _, traces in answers:
        traces.wait_until_gone()


@pytest.mark.slow
def test_states_on_their_way_to_the_gpu_and_back(live_stack: Callable[..., LiveStack], tmp_path: Path) -> None:
    stack = live_stack(
        GEMMA_GPU="simulated", GEMMA_SHM_DIR=str(tmp_path), GPU_MAX_HOLD_SECS="2", GEMMA_GPU_LOAD_DELAY_MS="300"
    )
    answers = [tell(stack, f"{SECRET}-{number}") for number in range(3)]
    for number, (conversation, _) in enumerate(answers):
        # Work that keeps the GPU coming and going.
        chat(stack, f"{PADDING}[[delay: 40]] [[count: 25]] {OTHER}", max_tokens=200)
        chat(stack, f"{SECRET}-{number}", conversation_id=conversation)
        delete(stack, f"api/conversations/{conversation}/")
    for _, traces in answers:
        traces.wait_until_gone()


@pytest.mark.slow
def test_a_deleted_memory_leaves_no_states_where_it_was_shown(live_stack: Callable[..., LiveStack]) -> None:
    stack = live_stack(GEMMA_GPU="off")
    body = {"title": "Words", "body": f"The password of the vault is {SECRET}. {PADDING}"}
    added = httpx.post(f"{stack.url}/memory/add", json=body, timeout=60).json()
    shown = chat(stack, "What is the password of the vault?", use_rag=True)
    assert shown["rag_context_used"] == 1, shown
    httpx.post(f"{stack.url}/memory/add", json={"title": "", "body": f"Never shown: {OTHER}"}, timeout=60)
    traces = Traces(stack, *needles(SECRET))
    traces.wait_until_in("kv-cache")
    delete(stack, f"memory/{added['memory_id']}")
    assert waited(lambda: not any("kv-cache" in each for each in traces.find())), traces.find()
    again = chat(stack, "And once more?", conversation_id=shown["conversation_id"])
    assert again["usage"]["cached_tokens"] < 200, "nothing of the former turn was in the cache"  # type: ignore[index]
    delete(stack, f"api/conversations/{shown['conversation_id']}/")
    # Its copy went with the conversation: now the words are not in the text index either.
    traces.wait_until_gone()


@pytest.mark.slow
def test_a_memory_that_nobody_was_shown(live_stack: Callable[..., LiveStack]) -> None:
    stack = live_stack(GEMMA_GPU="off")
    segments = [{"text": f"{SECRET} was said here", "start_time": 0.0}, {"text": "and more", "start_time": 2.0}]
    job = {"job_id": "meeting", "segments": segments, "full_text": f"{SECRET} was said here and more"}
    assert httpx.post(f"{stack.url}/index/transcript", json=job, timeout=60).json()["success"]
    traces = Traces(stack, *needles(SECRET))
    words = Traces(stack, b"quetzalcoatlu", b"bandersnatch")  # as the text index has them, stemmed
    traces.wait_until_in("gemma.sqlite3")
    words.wait_until_in("gemma.sqlite3")
    delete(stack, "transcript/meeting")
    traces.wait_until_gone()
    words.wait_until_gone()


@pytest.mark.slow
@pytest.mark.real_model
def test_the_same_with_the_real_model(live_stack: Callable[..., LiveStack], model_path: Path) -> None:
    stack = live_stack(backend="llama", GEMMA_GPU="off", GEMMA_CONTEXT_SIZE="4096")
    vocabulary = open_vocabulary(EngineConfig(model_path=model_path))
    kept, _ = tell(stack, OTHER, max_tokens=8)
    first = chat(stack, f"{PADDING}The word is {SECRET}", max_tokens=8)
    conversation = first["conversation_id"]
    traces = Traces(stack, *needles(SECRET, vocabulary), generation_ids=[str(first["generation_id"])])
    assert_kept_everywhere(traces)
    delete(stack, f"api/conversations/{conversation}/")
    traces.wait_until_gone()
    again = chat(stack, "And now?", conversation_id=kept, max_tokens=8)
    assert again["usage"]["cached_tokens"] > 40, "the other conversation is still cached"  # type: ignore[index]
