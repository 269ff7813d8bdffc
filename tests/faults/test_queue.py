"""More work than the queue takes: refusals with Retry-After, fairness, and one run for a key sent many times."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from uuid import uuid4

import httpx
import psutil
import pytest
import websockets

from tests.api.live import answer_over, count, make_users, say, text_of
from tests.faults.breaking import FaultStack
from tests.faults.conftest import MakeStack, Seen
from tests.faults.reading import Client, numbers

PARALLEL, QUEUE_MAX, PER_CALLER = 2, 12, 10
N_USERS = 8  # a caller may open 256 sockets


@pytest.mark.fault(
    "32",
    "three times as many requests as may wait, nearly all of them one user's",
    "429 for who has too much, 503 for all beyond the queue, each with Retry-After; the light user's first answer does "
    "not wait for the greedy one's; what was accepted is answered",
    quick=False,
)
def test_a_burst(make_stack: MakeStack, seen: Seen) -> None:
    stack = make_stack(GEMMA_PARALLEL=str(PARALLEL), QUEUE_MAX=str(QUEUE_MAX), QUEUE_MAX_PER_CALLER=str(PER_CALLER))
    stack.start()
    greedy, light, other = make_users(stack, "greedy", "light", "other")

    def ask(headers: dict[str, str], body: dict[str, object]) -> tuple[float, httpx.Response]:
        response = httpx.post(f"{stack.url}/chat", json=body, headers=headers, timeout=120)
        return time.monotonic(), response

    body = count(20, delay_ms=30, store=False)
    with ThreadPoolExecutor(64) as pool:
        greedy_asked = [pool.submit(ask, greedy.headers, body) for _ in range(3 * PER_CALLER)]
        time.sleep(1)
        light_asked = pool.submit(ask, light.headers, say("light", store=False))
        light_at, light_answer = light_asked.result()
        rest = [pool.submit(ask, other.headers, body) for _ in range(PER_CALLER)]
        readings = [futures.result() for futures in greedy_asked]
        told_rest = [futures.result()[1] for futures in rest]
    answered = sorted(at for at, response in readings if response.status_code == 200)
    refused = [response for _, response in readings if response.status_code != 200]
    assert PER_CALLER <= len(answered) <= PER_CALLER + 4, "a few may have ended while the last ones came"
    assert {response.status_code for response in refused} == {429}
    assert light_answer.status_code == 200
    seen["light_answered_before"] = f"{sum(at > light_at for at in answered)} of {len(answered)} greedy ones"
    # Two were running when it came, and those that had ended by then.
    assert sum(at > light_at for at in answered) >= PER_CALLER // 2, "it stood behind all of them"
    full = [response for response in told_rest if response.status_code == 503]
    assert full
    assert {response.status_code for response in told_rest} <= {200, 429, 503}
    assert {response.json()["error"]["code"] for response in full} == {"queue_full"}
    assert all(int(response.headers["Retry-After"]) >= 1 for response in [*refused, *full])
    accepted = len(answered) + 1 + sum(response.status_code == 200 for response in told_rest)
    rows = [row for row in stack.rows() if row.status == "complete"]
    assert len(rows) == accepted + 1, "each accepted one once, and what the start asked for"
    seen |= {"refused_429": len(refused), "refused_503": len(full), "accepted": accepted}


@pytest.mark.fault(
    "33",
    "one Idempotency-Key 20 times at the same time, over /chat, /chat/stream and the WebSocket; then another body",
    "one generation, 20 times its answer; 409",
    repeated=True,
)
def test_one_key(stack: FaultStack, seen: Seen) -> None:
    body, key = count(30, delay_ms=10), uuid4().hex
    headers = {"Idempotency-Key": key}
    before = {row.id for row in stack.rows()}  # some of other tests may be forgotten meanwhile

    def over_rest() -> str:
        text: str = httpx.post(f"{stack.url}/chat", json=body, headers=headers, timeout=60).json()["response"]
        return text

    def over_stream() -> str:
        return Client(stack.url).read(body, key=key).text

    def over_socket() -> str:
        return asyncio.run(_over_socket(stack, body, key))

    with ThreadPoolExecutor(20) as pool:
        futures = [pool.submit(way) for way in [over_rest] * 7 + [over_stream] * 7 + [over_socket] * 6]
        texts = [each.result() for each in futures]
    assert set(texts) == {numbers(30)}
    assert len(texts) == 20
    assert len({row.id for row in stack.rows()} - before) == 1
    conflict = httpx.post(f"{stack.url}/chat", json=say("another"), headers=headers)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert len({row.id for row in stack.rows()} - before) == 1


async def _over_socket(stack: FaultStack, body: dict[str, object], key: str) -> str:
    async with websockets.connect(stack.url.replace("http", "ws") + "/ws/chat") as socket:
        return text_of(await answer_over(socket, {"type": "chat", "idempotency_key": key} | body))


@pytest.mark.fault(
    "32",
    "200 clients at once, each of whom waits for an answer",
    "every one is answered or refused with Retry-After; nothing is left running",
    quick=False,
)
def test_two_hundred_at_once(stack: FaultStack, seen: Seen) -> None:
    web, worker = stack.process("gemma-web"), stack.process("gemma-worker")
    before_mb = [process.memory_info().rss / 1e6 for process in (web, worker)]
    asyncio.run(_crowd(stack, seen))
    seen["web_mb_more"] = round(web.memory_info().rss / 1e6 - before_mb[0], 1)
    seen["worker_mb_more"] = round(worker.memory_info().rss / 1e6 - before_mb[1], 1)
    assert web.is_running()
    assert {row.status for row in stack.rows()} <= {"complete", "interrupted", "failed"}


async def _crowd(stack: FaultStack, seen: Seen) -> None:
    limits = httpx.Limits(max_connections=400)
    async with httpx.AsyncClient(base_url=stack.url, timeout=120, limits=limits) as client:
        answers = await asyncio.gather(
            *[client.post("/chat", json=say(f"{n} of many", store=False)) for n in range(200)]
        )
    texts = {answer.json()["response"] for answer in answers if answer.status_code == 200}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(texts) + len(refused) == 200
    assert all(answer.status_code in (429, 503) and answer.headers["Retry-After"] for answer in refused)
    seen |= {"answered": len(texts), "refused": len(refused)}


@pytest.mark.fault(
    "32", "2,000 WebSockets of 8 users that wait", "all stay open, others are answered, memory stated", quick=False
)
def test_idle_sockets(stack: FaultStack, seen: Seen) -> None:
    users = make_users(stack, *(f"user{number}" for number in range(N_USERS)))
    web = stack.process("gemma-web")
    seen |= asyncio.run(_idle_sockets(stack, web, [user.headers for user in users]))
    assert web.is_running()


async def _idle_sockets(stack: FaultStack, web: psutil.Process, callers: list[dict[str, str]]) -> Seen:
    before = web.memory_info().rss
    address = stack.url.replace("http", "ws") + "/ws/chat"
    async with AsyncExitStack() as opened, asyncio.timeout(300):
        sockets = []
        for headers in callers:
            connecting = [
                opened.enter_async_context(websockets.connect(address, open_timeout=60, additional_headers=headers))
                for _ in range(2000 // N_USERS)
            ]
            sockets += await asyncio.gather(*connecting)
        grown_mb = (web.memory_info().rss - before) / 1e6
        assert text_of(await answer_over(sockets[0], {"type": "chat"} | say("awake", store=False))) == "awake"
        assert text_of(await answer_over(sockets[-1], {"type": "chat"} | say("awake", store=False))) == "awake"
        return {"sockets": len(sockets), "web_mb_more": round(grown_mb, 1)}
