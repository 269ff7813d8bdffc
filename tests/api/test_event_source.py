"""A browser's EventSource, which reconnects whenever a stream ends: it stops once it has the last line."""

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
import websockets

from tests.api.live import Line, answer_over, count, data_lines, read_stream, say, text_of
from tests.live_stack import LiveStack

MAX_CONNECTIONS = 30


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        yield client


def event_source(client: httpx.Client, path: str, *, cut_after: int = 1_000_000) -> tuple[list[Line], int]:
    """Read as the HTML standard has it: reconnect with the last id until a status other than 200 comes.

    Returns the lines and the number of connections; ``cut_after`` ends each after so many tokens.
    """
    lines: list[Line] = []
    last_id = ""
    for connection in range(1, MAX_CONNECTIONS + 1):
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with client.stream("GET", path, headers=headers) as response:
            if response.status_code != 200:
                assert (response.status_code, response.read()) == (204, b"")
                return lines, connection
            n_tokens = 0
            for line in data_lines(response):
                lines.append(line)
                last_id = str(line["id"])
                n_tokens += bool(line["token"])
                if n_tokens == cut_after:
                    break
    raise AssertionError("the browser would reconnect for ever")


@pytest.mark.parametrize(
    "body",
    [
        say("done"),
        count(100, max_tokens=3),
        count(100, stop=["7 8"]),
        say(""),
        say("𠮷" * 10, max_tokens=6),
        count(1000, delay_ms=50, timeout_s=0.6),
        {"messages": [{"role": "user", "content": "[[abort]]"}]},
    ],
    ids=["stop", "length", "stop string", "no text", "half a character", "timeout", "crash"],
)
def test_an_ended_answer_is_read_once(body: object, client: httpx.Client) -> None:
    started = read_stream(client, "/chat/stream", body)
    lines, n_connections = event_source(client, f"/chat/stream/{started[0]['generation_id']}")
    assert n_connections == 2
    assert [line["done"] for line in lines].count(True) == 1
    assert text_of(lines) == text_of(started)
    assert lines[-1]["id"] == started[-1]["id"]


def test_a_running_answer_through_cut_connections(client: httpx.Client) -> None:
    with client.stream("POST", "/chat/stream", json=count(12, delay_ms=20) | {"priority": "batch"}) as stream:
        first = next(data_lines(stream))
    lines, _ = event_source(client, f"/chat/stream/{first['generation_id']}", cut_after=5)
    assert text_of(lines) == "".join(f"{n} " for n in range(1, 13))


def test_the_last_line_has_an_id_of_its_own(client: httpx.Client) -> None:
    lines = read_stream(client, "/chat/stream", count(5))
    ids = [line["id"] for line in lines if line["token"] and not line["done"]]
    assert lines[-1]["id"] == ids[-1] + 1


@pytest.mark.parametrize("offset", [-3, -2, -1, 1, 2, 1000])
@pytest.mark.parametrize("by", ["header", "query"])
def test_every_other_id_gets_the_end(offset: int, by: str, client: httpx.Client) -> None:
    started = read_stream(client, "/chat/stream", count(5))
    path, last_id = f"/chat/stream/{started[0]['generation_id']}", started[-1]["id"]
    after = str(last_id + offset)
    if by == "header":
        lines = read_stream(client, path, headers={"Last-Event-ID": after})
    else:
        lines = read_stream(client, f"{path}?after={after}")
    assert lines[-1]["done"]
    assert lines[-1]["id"] == last_id
    assert text_of(lines) == text_of([line for line in started if line["id"] > last_id + offset])


def test_the_id_of_the_end_while_the_answer_runs(client: httpx.Client) -> None:
    """The next token's id is not the end's: nothing has ended."""
    with client.stream("POST", "/chat/stream", json=count(30, delay_ms=30)) as stream:
        lines = data_lines(stream)
        started = next(lines)
        token = next(line for line in lines if line["token"])
        path = f"/chat/stream/{started['generation_id']}"
        rest = read_stream(client, path, headers={"Last-Event-ID": str(token["id"] + 1)})
        assert rest[-1]["done"]


def test_the_socket_still_resumes_there(client: httpx.Client, fake_stack: LiveStack) -> None:
    """A frame has no status: its client gets the last line again, which ends its waiting."""
    started = read_stream(client, "/chat/stream", say("over"))

    async def resume() -> list[Line]:
        async with websockets.connect(fake_stack.url.replace("http", "ws") + "/ws/chat") as socket:
            frame = {"type": "resume", "generation_id": started[0]["generation_id"], "after": started[-1]["id"]}
            return await answer_over(socket, json.loads(json.dumps(frame)))

    assert asyncio.run(resume())[-1]["finish_reason"] == "stop"


def test_an_answer_of_somebody_else_is_no_answer(client: httpx.Client) -> None:
    response = client.get("/chat/stream/00000000-0000-4000-8000-000000000000", headers={"Last-Event-ID": "1"})
    assert response.status_code == 404
