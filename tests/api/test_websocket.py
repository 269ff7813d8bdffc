"""The WebSocket: access, several answers over one socket, cancel, resume, and ends of a connection."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
import redis
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.api.live import LiveUser, answer_over, count, frames, make_users, say, text_of
from tests.live_stack import LiveStack

Socket = websockets.ClientConnection
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def ann(fake_stack: LiveStack) -> LiveUser:
    return make_users(fake_stack, "ann-ws")[0]


@pytest.fixture
def url(fake_stack: LiveStack) -> str:
    return fake_stack.url.replace("http", "ws") + "/ws/chat"


@pytest.fixture
async def socket(url: str) -> AsyncIterator[Socket]:
    async with websockets.connect(url) as socket:
        yield socket


async def test_sockets_that_wait_hold_nothing_in_redis(fake_stack: LiveStack, url: str) -> None:
    """A channel layer would poll Redis for every one of them, and end them all when Redis goes."""
    async with AsyncExitStack() as opened:
        for _ in range(5):
            socket = await opened.enter_async_context(websockets.connect(url))
            await socket.send("[]")
            assert json.loads(await socket.recv())["type"] == "error"
        client = redis.Redis.from_url(f"unix://{fake_stack.data_dir}/run/valkey.sock", decode_responses=True)
        try:
            commands = {connection["cmd"] for connection in client.client_list()}
        finally:
            client.close()
    assert commands
    assert not [command for command in commands if command.startswith("bzpop")]


async def closed(socket: Socket) -> int | None:
    """Return the code with which the service closes the connection; earlier frames are skipped."""
    with suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code


async def refused(url: str, **how: Any) -> int:  # noqa: ANN401
    """The status that a connection is refused with."""
    with pytest.raises(InvalidStatus) as caught:
        async with websockets.connect(url, **how):
            pass
    return caught.value.response.status_code


class TestWhoMayConnect:
    async def answers(self, url: str, **how: Any) -> Socket:  # noqa: ANN401
        async with websockets.connect(url, **how) as socket:
            lines = await answer_over(socket, {"type": "chat"} | say("hi", store=False))
            assert text_of(lines) == "hi"
            return socket

    async def test_this_machine_without_credentials(self, url: str) -> None:
        await self.answers(url)

    async def test_our_own_page(self, url: str) -> None:
        await self.answers(url, origin=url.replace("ws://", "http://").removesuffix("/ws/chat"))

    async def test_a_foreign_page(self, url: str) -> None:
        assert await refused(url, origin=EVIL) == 403
        assert await refused(url, origin="null") == 403

    async def test_a_token_in_the_header(self, url: str, ann: LiveUser) -> None:
        await self.answers(url, additional_headers=ann.headers)

    async def test_a_token_as_subprotocol_is_not_echoed(self, url: str, ann: LiveUser) -> None:
        socket = await self.answers(url, subprotocols=["gemma.v1", ann.access], origin=EVIL)
        assert socket.subprotocol == "gemma.v1"

    async def test_the_subprotocol_alone_is_no_credential(self, url: str) -> None:
        assert (await self.answers(url, subprotocols=["gemma.v1"])).subprotocol == "gemma.v1"
        assert await refused(url, subprotocols=["gemma.v1"], additional_headers={"X-Forwarded-For": "127.0.0.1"}) == 403

    async def test_wrong_tokens(self, url: str, ann: LiveUser) -> None:
        past = time.time() - 60
        for token in ("x", ann.access + "x", ann.access_with(exp=past), ann.access_with(token_type="refresh")):
            assert await refused(url, subprotocols=["gemma.v1", token]) == 403
            assert await refused(url, additional_headers={"Authorization": f"Bearer {token}"}) == 403
        assert await refused(url, subprotocols=["gemma.v1", ann.access, "another"]) == 403

    async def test_through_a_proxy(self, url: str, ann: LiveUser) -> None:
        forwarded = {"X-Forwarded-For": "127.0.0.1"}
        assert await refused(url, additional_headers=forwarded) == 403
        await self.answers(url, additional_headers=forwarded | ann.headers)

    async def test_another_name_for_this_machine(self, url: str) -> None:
        port = url.rpartition(":")[2].partition("/")[0]
        # A page that rebinds its name to 127.0.0.1 is of the origin that the Host header names.
        assert await refused(url, additional_headers={"Host": f"evil.example:{port}"}) == 403

    async def test_no_other_path(self, url: str) -> None:
        assert await refused(url + "/else") == 403

    async def test_a_session_needs_its_own_page(self, url: str, fake_stack: LiveStack, ann: LiveUser) -> None:
        cookie = {"Cookie": f"sessionid={_session(fake_stack, ann.name)}"}
        assert await refused(url, additional_headers=cookie) == 403
        assert await refused(url, additional_headers=cookie, origin=EVIL) == 403
        await self.answers(url, additional_headers=cookie, origin=fake_stack.url)


def _session(stack: LiveStack, name: str) -> str:
    code = (
        "from django.test import Client; from django.contrib.auth.models import User; c = Client(); "
        f"c.force_login(User.objects.get(username={name!r})); print(c.cookies['sessionid'].value)"
    )
    return stack.run("shell", "-v0", "-c", code).stdout.strip().splitlines()[-1]


async def test_the_frames_of_an_answer(socket: Socket) -> None:
    lines = await answer_over(socket, {"type": "chat", "request_id": "r1"} | say("hello"))
    assert [line["type"] for line in lines if line["type"] != "status"] == ["started", *["token"] * 5, "done"]
    assert {line["request_id"] for line in lines} == {"r1"}
    assert len({line["generation_id"] for line in lines}) == 1
    assert lines[0]["conversation_id"]
    assert text_of(lines) == "hello"
    assert lines[-1]["finish_reason"] == "stop"


async def test_several_answers_share_one_socket(socket: Socket) -> None:
    for n in range(4):
        await socket.send(json.dumps({"type": "chat", "request_id": str(n)} | count(40 + n, delay_ms=20)))
    texts = dict.fromkeys("0123", "")
    order: list[str] = []
    async with asyncio.timeout(30):
        n_ended = 0
        while n_ended < 4:
            line = json.loads(await socket.recv())
            texts[line["request_id"]] += line["token"]
            if line["type"] == "token":
                order.append(line["request_id"])
            n_ended += line["done"]
    for n in range(4):
        assert texts[str(n)] == "".join(f"{i} " for i in range(1, 41 + n))
    # Side by side: all four had begun before the first was half through.
    assert set(order[: len(order) // 2]) == set("0123")


async def test_a_key_makes_a_frame_safe_to_send_twice(socket: Socket, fake_stack: LiveStack) -> None:
    """The same answer over the same socket, over another, and over HTTP; another body with it is a conflict."""
    key = f"ws-{time.monotonic_ns()}"
    frame = {"type": "chat", "idempotency_key": key} | say("once")
    first = await answer_over(socket, frame)
    async with websockets.connect(fake_stack.url.replace("http", "ws") + "/ws/chat") as other:
        again = [await answer_over(each, frame) for each in (socket, other)]
        conflict = await answer_over(other, frame | say("something else"))
    async with httpx.AsyncClient(base_url=fake_stack.url, timeout=30) as client:
        whole = (await client.post("/chat", json=say("once"), headers={"Idempotency-Key": key})).json()
    assert {lines[-1]["generation_id"] for lines in [first, *again]} == {whole["generation_id"]}
    assert {text_of(lines) for lines in [first, *again]} == {"once"}
    assert conflict[-1]["error"]["code"] == "idempotency_key_reused"


async def test_cancel_ends_one_and_leaves_the_other(socket: Socket) -> None:
    await socket.send(json.dumps({"type": "chat", "request_id": "long"} | count(1000, delay_ms=30)))
    await socket.send(json.dumps({"type": "chat", "request_id": "short"} | count(30, delay_ms=30)))
    ends: dict[str, str] = {}
    is_cancelled = False
    async with asyncio.timeout(30):
        while len(ends) < 2:
            line = json.loads(await socket.recv())
            if line["request_id"] == "long" and line["type"] == "token" and not is_cancelled:
                await socket.send(json.dumps({"type": "cancel", "generation_id": line["generation_id"]}))
                is_cancelled = True
            if line["done"]:
                ends[line["request_id"]] = line["finish_reason"]
    assert ends == {"long": "cancelled", "short": "stop"}


async def test_cancel_of_what_has_ended(socket: Socket) -> None:
    ended = (await answer_over(socket, {"type": "chat"} | say("x")))[-1]
    (line,) = await answer_over(socket, {"type": "cancel", "generation_id": ended["generation_id"]})
    assert (line["type"], line["error"]["code"]) == ("error", "already_ended")


async def test_resume_from_every_token(socket: Socket) -> None:
    lines = await answer_over(socket, {"type": "chat"} | say("abcdef"))
    generation_id = lines[0]["generation_id"]
    for after in range(8):
        again = await answer_over(socket, {"type": "resume", "generation_id": generation_id, "after": after})
        assert again[0]["type"] == "started"
        assert text_of(again) == "abcdef"[after:]
        assert again[-1]["type"] == "done"


async def test_an_answer_goes_on_over_another_socket(url: str) -> None:
    async with websockets.connect(url) as first:
        await first.send(json.dumps({"type": "chat"} | count(20, delay_ms=30)))
        seen = []
        async for line in frames(first):
            seen.append(line)
            if line["id"] == 5:
                break
    async with websockets.connect(url) as second:
        resume = {"type": "resume", "generation_id": seen[0]["generation_id"], "after": 5}
        rest = await answer_over(second, resume)
    assert text_of(seen) + text_of(rest) == "".join(f"{n} " for n in range(1, 21))
    assert rest[-1]["finish_reason"] == "stop"


async def test_a_socket_that_closes_stops_its_answers(url: str, fake_stack: LiveStack) -> None:
    async with websockets.connect(url) as socket:
        await socket.send(json.dumps({"type": "chat"} | count(1000, delay_ms=50)))
        async for line in frames(socket):
            if line["type"] == "token":
                break
    async with httpx.AsyncClient(base_url=fake_stack.url) as client, asyncio.timeout(10):
        while (await client.get("/health")).json()["active"]:  # noqa: ASYNC110  another process
            await asyncio.sleep(0.05)


async def test_one_socket_cannot_have_any_number(socket: Socket) -> None:
    for n in range(20):
        await socket.send(json.dumps({"type": "chat", "request_id": str(n)} | count(200, delay_ms=20, store=False)))
    refusals: set[str] = set()
    async with asyncio.timeout(30):
        while len(refusals) < 4:
            line = json.loads(await socket.recv())
            if line["type"] == "error":
                assert line["error"]["code"] == "socket_limit"
                refusals.add(line["request_id"])
    assert refusals == {"16", "17", "18", "19"}


async def test_a_frame_of_two_megabytes_ends_the_connection(socket: Socket) -> None:
    with suppress(ConnectionClosed):  # it may happen while the frame is still being sent
        await socket.send("x" * 2 * 1024 * 1024)
    assert await closed(socket) == 1009
