"""The asynchronous client: a cancellation is obeyed wherever it arrives, and waiting has an end."""

import asyncio
import time

import pytest
from django.test import override_settings

from inference.runtime import redis_client
from inference.runtime.redis_client import UNAVAILABLE_ERRORS, async_client

# Enough of the event loop's turns to connect, to write and to wait for the reply.
TURNS = 30


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("turns", range(TURNS))
async def test_a_command_that_is_cancelled_is_over(turns: int, is_connected: bool) -> None:
    """At any moment of the command: a client's leaving cancels once, and there is no second cancel."""
    async with async_client(reply_timeout_secs=3) as client:
        if is_connected:
            await client.ping()
        reading = asyncio.create_task(client.xread({"silent": "0"}, block=400))
        for _ in range(turns):
            await asyncio.sleep(0)
        began = time.monotonic()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert time.monotonic() - began < 0.3


async def test_waiting_for_a_reply_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never replies; also when the URL of Redis has a timeout of its own."""
    monkeypatch.setattr(redis_client, "CONNECT_TIMEOUT_SECS", 0.1)
    hushed = asyncio.Event()

    async def says_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hushed.wait()
        writer.close()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with override_settings(REDIS_URL=f"redis://127.0.0.1:{port}/0?socket_timeout=60"):
            began = time.monotonic()
            async with async_client(reply_timeout_secs=0.1) as client:
                with pytest.raises(UNAVAILABLE_ERRORS):
                    await client.ping()
            assert time.monotonic() - began < 1
        hushed.set()
