"""Several streams at once on one model: they progress side by side, and none waits for another's end."""

import asyncio
import itertools
import json
import time

import httpx
import pytest

from tests.live_stack import LiveStack

pytestmark = pytest.mark.real_model


def has_token(line: str) -> bool:
    return line.startswith("data: ") and bool(json.loads(line[6:])["token"])


async def token_times(client: httpx.AsyncClient, question: str) -> list[float]:
    """Monotonic seconds at which each non-empty token of one answer arrived."""
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 120,
        "ignore_eos": True,
        "stop": [],
        "store": False,
    }
    async with client.stream("POST", "/chat/stream", json=body) as stream:
        assert stream.status_code == 200
        return [time.monotonic() async for line in stream.aiter_lines() if has_token(line)]


@pytest.mark.slow
def test_four_streams_progress_side_by_side(real_stack: LiveStack) -> None:
    async def ask_all() -> list[list[float]]:
        async with httpx.AsyncClient(base_url=real_stack.url, timeout=100) as client:
            questions = [f"Write a long list of things about the number {n}." for n in range(4)]
            return list(await asyncio.gather(*(token_times(client, question) for question in questions)))

    times = asyncio.run(ask_all())
    assert all(len(arrivals) >= 10 for arrivals in times), [len(arrivals) for arrivals in times]
    last_start = max(arrivals[0] for arrivals in times)
    first_end = min(arrivals[-1] for arrivals in times)
    assert last_start < first_end, "one answer was over before another had begun"
    order = [n for _, n in sorted((moment, n) for n, arrivals in enumerate(times) for moment in arrivals)]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes >= len(order) // 4, f"the tokens came in blocks: {changes} changes among {len(order)} tokens"
