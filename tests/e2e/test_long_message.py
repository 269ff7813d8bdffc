"""A message that the real model reads in parts: how these end, and how long the same caller's next question waits."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live_stack import LiveStack, running_stack, wait_until

pytestmark = pytest.mark.real_model

# About twenty parts in the context of this stack.
LONG = "\n\n".join(
    f"Paragraph {number} of the report says that the sum was {number * 7}. " * 8 for number in range(250)
)
# The promise is one second on a quiet machine; the rest is slack for a busy one.
PARTS_END_WITHIN_SECS = 6.0
FIRST_TOKEN_WITHIN_SECS = 15.0
UNFINISHED_PARTS = """
    SELECT count(*) FROM inference_generation
    WHERE annex LIKE '%"part_of"%' AND status IN ('preparing', 'queued', 'running')
"""


@pytest.fixture(scope="module")
def stack(model_path: Path) -> Iterator[LiveStack]:
    environment = {"GEMMA_MODEL_PATH": str(model_path), "GEMMA_CONTEXT_SIZE": "2048", "STREAM_GRACE_SECS": "0.5"}
    with running_stack("llama", **environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=120) as client:
        yield client


def rows(stack: LiveStack, query: str, *values: object) -> int:
    with closing(sqlite3.connect(stack.data_dir / "gemma.sqlite3", timeout=20)) as database:
        return int(database.execute(query, values).fetchone()[0])


def lines(response: httpx.Response) -> Iterator[dict[str, Any]]:
    return (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))


def first_token_secs(client: httpx.Client) -> float:
    """Seconds from a short question to the first token of its answer."""
    began = time.monotonic()
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 4}
    with client.stream("POST", "/chat/stream", json=body) as response:
        next(line for line in lines(response) if line["token"])
    return time.monotonic() - began


def cancel(client: httpx.Client, first: dict[str, Any], response: httpx.Response) -> None:
    assert client.post(f"/api/generations/{first['generation_id']}/cancel").status_code == 200


def delete(client: httpx.Client, first: dict[str, Any], response: httpx.Response) -> None:
    assert client.delete(f"/api/conversations/{first['conversation_id']}/").status_code == 204


def leave(client: httpx.Client, first: dict[str, Any], response: httpx.Response) -> None:
    response.close()


WAYS: dict[str, Callable[[httpx.Client, dict[str, Any], httpx.Response], None]] = {
    "cancelled": cancel,
    "conversation deleted": delete,
    "client gone": leave,
}


@pytest.mark.parametrize("way", WAYS)
def test_parts_end_with_their_turn_and_the_next_question_does_not_wait(
    stack: LiveStack, client: httpx.Client, way: str
) -> None:
    body = {"messages": [{"role": "user", "content": LONG}], "strategy": "summarize", "max_tokens": 8}
    with client.stream("POST", "/chat/stream", json=body) as response:
        source = lines(response)
        first = next(source)
        wait_until(lambda: rows(stack, UNFINISHED_PARTS) > 0, timeout_secs=60, what="a part is computed")
        beside = first_token_secs(client)
        assert rows(stack, UNFINISHED_PARTS) > 0, "the message was read before it could be given up"
        WAYS[way](client, first, response)
        wait_until(
            lambda: rows(stack, UNFINISHED_PARTS) == 0, timeout_secs=PARTS_END_WITHIN_SECS, what="no unfinished part"
        )
        after = first_token_secs(client)
    assert beside <= FIRST_TOKEN_WITHIN_SECS
    assert after <= FIRST_TOKEN_WITHIN_SECS
    if way == "conversation deleted":
        tag = f"%{first['conversation_id'].replace('-', '')}%"
        assert rows(stack, "SELECT count(*) FROM inference_generation WHERE params LIKE ?", tag) == 0
        assert client.get(f"/api/conversations/{first['conversation_id']}/").status_code == 404
