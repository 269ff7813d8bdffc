"""The README's question to the meetings in ``examples/``, and to a memory service in a process of its own."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gemma_project.supervisor.tether import tethered
from tests.live_stack import PROJECT, LiveStack, free_port, wait_until

EXAMPLES = PROJECT / "examples" / "meetings"
QUESTION = "What did Sarah say about the deadline?"
# As in the README; the scripted model answers with the text in the brackets.
BODY = {"use_rag": True, "rag_top_k": 5, "max_tokens": 300}
SECRET = "a key of the whole installation, long enough"


def ask(client: httpx.Client, answer: str) -> dict[str, Any]:
    question = {"role": "user", "content": f"{QUESTION} [[say: {answer}]]"}
    response = client.post("/chat", json={"messages": [question]} | BODY)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


@contextmanager
def rag_service(form: str) -> Iterator[str]:
    port = free_port()
    command = tethered([sys.executable, "-m", "tests.rag_service_process", str(port), form])
    environment = {"JWT_SECRET": SECRET, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(command, env=environment, cwd=PROJECT)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=1).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, timeout_secs=20, what="the memory service answers")
        yield url
    finally:
        process.kill()
        process.wait()


Counts = list[int]


def stored(client: httpx.Client) -> Counts:
    """Return the numbers of transcripts, segments and notes, as /health has them."""
    state = client.get("/health").json()["rag_service"]
    assert state["ok"] is True
    counts = re.search(r"(\d+) transcripts?, (\d+) segments?, (\d+) notes?", state["detail"])
    return [int(number) for number in counts.groups()] if counts else [0, 0, 0]


@pytest.fixture(scope="module")
def before(fake_stack: LiveStack) -> Counts:
    """The memories of other tests."""
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        return stored(client)


@pytest.fixture(scope="module")
def imported(fake_stack: LiveStack, before: Counts) -> Iterator[httpx.Client]:
    done = fake_stack.run("import_memories", str(EXAMPLES))
    assert done.returncode == 0, done.stderr
    assert "4 files: 14 segments and 2 notes imported" in done.stdout
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        yield client


def test_the_built_in_store_answers_from_the_imported_meetings(imported: httpx.Client) -> None:
    reply = ask(imported, "It is moved [1], not bought [9].")
    assert reply["rag_context_used"] == len(reply["sources"]) > 0
    assert "rag_error" not in reply
    about = [source for source in reply["sources"] if source["speaker"] == "Sarah" and "deadline" in source["text"]]
    assert about, reply["sources"]
    assert about[0]["time"].startswith("2026-03-")
    first, *others = reply["sources"]
    assert first["cited"] is True
    assert not any(source["cited"] for source in others)
    assert "[9]" not in reply["response"]


def test_health_counts_what_was_imported(imported: httpx.Client, before: Counts) -> None:
    assert [now - then for now, then in zip(stored(imported), before, strict=True)] == [3, 14, 2]


def test_over_a_stream_too(imported: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}]} | BODY
    with imported.stream("POST", "/chat/stream", json=body) as stream:
        *_, last = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert last["done"] is True
    assert any(source["speaker"] == "Sarah" for source in last["sources"])


@pytest.mark.slow
def test_both_forms_of_an_external_service(live_stack: Callable[..., LiveStack]) -> None:
    with rag_service("new") as url:
        stack = live_stack(RAG_SERVICE_URL=url, JWT_SECRET=SECRET, JSON_PATIENCE_SECS="60")
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            reply = ask(client, "Not on Friday [1].")
            health = client.get("/health").json()["rag_service"]
        assert [source["speaker"] for source in reply["sources"]] == ["Sarah", "John"]
        assert [source["cited"] for source in reply["sources"]] == [True, False]
        assert (health["ok"], health["breaker"]) == (True, "closed")
    assert stack.stop() == 0
    with rag_service("old") as url:
        stack.environment["RAG_SERVICE_URL"] = url
        stack.start()
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            reply = ask(client, "Not on Friday [1].")
        assert [source["emotion"] for source in reply["sources"]] == ["worried", "calm"]
    # The service is gone now: the answer comes all the same.
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        reply = ask(client, "I do not know.")
    assert (reply["response"], reply["sources"]) == ("I do not know.", [])
    assert reply["rag_error"] == "the memory service could not be reached"
