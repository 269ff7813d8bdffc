"""Clients of streams that leave in crowds, read slowly or not at all, come late, and write in any script."""

import asyncio
import json
import socket
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest
import redis
import websockets

from tests.api.live import Line, assert_one_end, count, data_lines, frames, read_stream, say, text_of
from tests.live_stack import LiveStack, wait_until

N_CROWD = 200
N_SLEEPERS = 20
# Emoji of one and of several code points, CJK, combining marks, right to left, and characters special in JSON or lines.
SCRIPTS = "Ünï é \N{GRINNING FACE} 👩‍👩‍👧 🇩🇪 漢字かな 한국어 עברית नमस्ते \u2028\u0085 \\u0041 \"'"


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        yield client


def request_bytes(path: str, body: object | None = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def ask_and_leave(port: int, stay_secs: float) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_bytes("/chat/stream", count(2000, delay_ms=20, store=False)))
    await asyncio.sleep(stay_secs)
    writer.close()


async def crowd(port: int) -> None:
    await asyncio.gather(*[ask_and_leave(port, 0.5) for _ in range(N_CROWD)])


def test_a_crowd_that_leaves_frees_the_model(live_stack: Callable[..., LiveStack]) -> None:
    """Mass disconnect: 200 clients with half a second of patience for long answers. The next short request is
    answered, and nothing of theirs runs on."""
    stack = live_stack(STREAM_GRACE_SECS="0", GEMMA_PARALLEL="4", QUEUE_MAX="1000", QUEUE_MAX_PER_CALLER="1000")
    asyncio.run(crowd(stack.port))
    began = time.monotonic()
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        assert client.post("/chat", json=say("next")).json()["response"] == "next"
        answered_secs = time.monotonic() - began

        def is_idle() -> bool:
            health = client.get("/health").json()
            return bool(health["active"] == 0 and health["queue_depth"] == 0)

        wait_until(is_idle, timeout_secs=30, what="nothing runs or waits")
    assert answered_secs < 20, "5 s are promised; the rest is slack for a machine that runs other tests"
    assert "took too long" not in stack.output


def test_a_silent_client_that_leaves_is_seen_at_once(client: httpx.Client, fake_stack: LiveStack) -> None:
    """Disconnect seen quickly: while the model is silent, the reader is gone and its connection to Redis closed."""
    store = redis.Redis.from_url(f"unix://{fake_stack.data_dir}/run/valkey.sock", decode_responses=True)

    def n_reading() -> int:
        return sum(connection["cmd"].startswith("xread") for connection in store.client_list())

    n_before = n_reading()
    with client.stream("POST", "/chat/stream", json=count(2, delay_ms=3000, store=False)) as stream:
        lines = data_lines(stream)  # referenced: httpx closes a connection whose iterator is collected
        generation_id = next(lines)["generation_id"]
        wait_until(lambda: n_reading() > n_before, timeout_secs=5, what="the stream is read")
    wait_until(
        lambda: n_reading() <= n_before and store.zcard(f"gemma:readers:{generation_id}") == 0,
        timeout_secs=1.5,  # 0.1 s is promised
        what="the reader is gone",
    )
    store.close()
    assert "took too long" not in fake_stack.output


def sleeper(port: int, path: str) -> socket.socket:
    """Asks for a stream and reads nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request_bytes(path))
    return connection


def test_readers_that_sleep_cost_their_answers_and_no_more(client: httpx.Client, fake_stack: LiveStack) -> None:
    """A slow reader is bounded: memory grows by readers times the answer at most, and no other client is slowed."""
    lines = read_stream(client, "/chat/stream", count(400, store=False))
    answer_bytes = sum(len(json.dumps(line)) + 20 for line in lines)
    path = f"/chat/stream/{lines[0]['generation_id']}"
    web = fake_stack.process("gemma-web")
    rss_before = web.memory_info().rss
    with ExitStack() as opened:
        for _ in range(N_SLEEPERS):
            opened.enter_context(sleeper(fake_stack.port, path))
        began = time.monotonic()
        assert text_of(read_stream(client, path)) == text_of(lines)
        assert client.post("/chat", json=say("awake")).json()["response"] == "awake"
        assert time.monotonic() - began < 15
        wait_until(lambda: is_resting(web), timeout_secs=20, what="all has been written")
        growth = web.memory_info().rss - rss_before
    # Twisted holds at most two copies of written data until the kernel takes it; 20 MB for everything else.
    assert growth < 2 * N_SLEEPERS * answer_bytes + 20_000_000


def is_resting(process: psutil.Process) -> bool:
    return process.cpu_percent(interval=0.3) < 10


def test_a_slow_reader_gets_every_token_of_a_stream(client: httpx.Client) -> None:
    """No token is dropped for a slow consumer: 5,000 events, read more slowly than they are made."""
    lines: list[Line] = []
    with client.stream("POST", "/chat/stream", json=count(1270, max_tokens=6000, store=False)) as stream:
        for line in data_lines(stream):
            lines.append(line)
            if len(lines) % 50 == 0:
                time.sleep(0.02)
    assert_whole(lines, 1270)


async def test_a_slow_reader_gets_every_token_of_a_socket(fake_stack: LiveStack) -> None:
    """No token is dropped for a slow consumer, of a WebSocket neither."""
    lines: list[Line] = []
    async with websockets.connect(fake_stack.url.replace("http", "ws") + "/ws/chat", max_queue=1) as socket:
        await socket.send(json.dumps({"type": "chat"} | count(1270, max_tokens=6000, store=False)))
        async for line in frames(socket):
            lines.append(line)
            if len(lines) % 50 == 0:
                await asyncio.sleep(0.02)
    assert_whole(lines, 1270)


def assert_whole(lines: list[Line], numbers: int) -> None:
    text = "".join(f"{n} " for n in range(1, numbers + 1))
    tokens = [line["id"] for line in lines if line["token"] and not line["done"]]
    assert len(text) > 5000
    assert tokens == list(range(1, len(text) + 1))  # one token a character
    assert text_of(lines) == text
    assert_one_end(lines)


async def test_any_script_comes_whole_by_every_way(client: httpx.Client, fake_stack: LiveStack) -> None:
    """UTF-8 safe: a token is a byte here, so that every character of several is cut; no event shows a part of one."""
    body = say(SCRIPTS, store=False)
    streamed = await asyncio.to_thread(read_stream, client, "/chat/stream", body)
    async with websockets.connect(fake_stack.url.replace("http", "ws") + "/ws/chat") as socket:
        await socket.send(json.dumps({"type": "chat"} | body))
        socketed = [line async for line in frames(socket)]
    for lines in (streamed, socketed):
        assert text_of(lines) == SCRIPTS
        for line in lines:
            line["token"].encode()  # no half of a surrogate pair
            assert "\N{REPLACEMENT CHARACTER}" not in line["token"]
    assert (await asyncio.to_thread(client.post, "/chat", json=body)).json()["response"] == SCRIPTS
    assert any(unicodedata.combining(character) for character in SCRIPTS)


def test_cut_within_characters_and_resumed(client: httpx.Client) -> None:
    """Resume is gapless in UTF-8: after every byte of a text the rest is the part not sent yet."""
    lines = read_stream(client, "/chat/stream", say("é漢\N{GRINNING FACE}e\u0301", store=False))
    text = ""
    for line in lines[:-1]:
        text += line["token"]
        rest = read_stream(
            client, f"/chat/stream/{lines[0]['generation_id']}", headers={"Last-Event-ID": str(line["id"])}
        )
        assert text + text_of(rest) == text_of(lines)


def test_who_comes_late_is_told_everything(client: httpx.Client, fake_stack: LiveStack) -> None:
    """Late joiner: in the middle, after the end and after the log's time it is all replayed, until it is deleted."""
    store = redis.Redis.from_url(f"unix://{fake_stack.data_dir}/run/valkey.sock")
    whole = "".join(f"{n} " for n in range(1, 16))
    with client.stream("POST", "/chat/stream", json=count(15, delay_ms=20)) as stream:
        lines = data_lines(stream)
        first = next(lines)
        path = f"/chat/stream/{first['generation_id']}"
        begun = [next(line for line in lines if line["id"] == 5)]
        assert text_of(read_stream(client, path)) == whole  # joins in the middle, stays to the end
        stored = [*begun, *lines][-1]
    again = read_stream(client, path)
    assert store.delete(f"gemma:log:{first['generation_id']}") == 1
    store.close()
    for text in (again, read_stream(client, path)):
        assert_one_end(text)
        assert text_of(text) == whole
        # The same run of the model, not a second one.
        assert (text[-1]["usage"], text[-1]["timings"]) == (stored["usage"], stored["timings"])
    assert client.delete(f"/api/conversations/{first['conversation_id']}/").status_code == 204
    assert client.get(path).status_code == 404
