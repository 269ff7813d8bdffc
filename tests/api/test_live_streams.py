"""Answers over real sockets: the same by every interface, resumable everywhere, one per key, gone when left."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis
import websockets

from tests.api.live import Line, answer_over, assert_one_end, count, data_lines, read_stream, say, text_of
from tests.live_stack import LiveStack, wait_until

SEEDED = {
    "messages": [{"role": "user", "content": "[[count: 40]]"}],
    "seed": 11,
    "cache_prompt": False,
    "max_tokens": 60,
}


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        yield client


@pytest.fixture
def store(fake_stack: LiveStack) -> Iterator["redis.Redis[str]"]:
    client = redis.Redis.from_url(f"unix://{fake_stack.data_dir}/run/valkey.sock", decode_responses=True)
    yield client
    client.close()


def is_idle(client: httpx.Client) -> bool:
    health = client.get("/health").json()
    return bool(health["active"] == 0 and health["queue_depth"] == 0)


def last_message(client: httpx.Client, conversation_id: str) -> Line:
    message: Line = client.get(f"/api/conversations/{conversation_id}/messages/").json()["results"][-1]
    return message


def test_rest_stream_and_socket_say_the_same(client: httpx.Client, fake_stack: LiveStack) -> None:
    async def over_socket() -> list[Line]:
        async with websockets.connect(fake_stack.url.replace("http", "ws") + "/ws/chat") as socket:
            return await answer_over(socket, {"type": "chat"} | SEEDED)

    rest = client.post("/chat", json=SEEDED).json()
    streamed, socketed = read_stream(client, "/chat/stream", SEEDED), asyncio.run(over_socket())
    assert text_of(streamed) == text_of(socketed) == rest["response"]
    for lines in (streamed, socketed):
        assert_one_end(lines)
        assert lines[-1]["usage"] == rest["usage"]
        assert lines[-1]["finish_reason"] == rest["finish_reason"]
    assert rest["usage"]["total_tokens"] == rest["usage"]["prompt_tokens"] + rest["usage"]["completion_tokens"]


def test_the_response_has_every_field_of_the_protocol(client: httpx.Client) -> None:
    answer = client.post("/chat", json=say("hello")).json()
    wanted = {"response", "model", "usage", "rag_context_used", "gpu_wait_time", "inference_time"}
    wanted |= {
        "conversation_id",
        "message_id",
        "generation_id",
        "finish_reason",
        "sources",
        "timings",
        "device",
        "devices",
    }
    assert wanted <= answer.keys()
    assert {"prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"} <= answer["usage"].keys()
    assert (answer["response"], answer["finish_reason"], answer["device"]) == ("hello", "stop", "cpu")
    assert answer["message"] == answer["text"] == answer["response"]  # fields that clients of the stack read
    assert (answer["mode"], answer["tokens_generated"]) == ("cpu", answer["usage"]["completion_tokens"])


def test_the_simplest_client_reads_every_line(client: httpx.Client) -> None:
    """The loop that people run already: no line may lack ``token``, and no other line may begin with ``data: ``."""
    text = ""
    with client.stream("POST", "/chat/stream", json=say("naïve \N{GRINNING FACE}\u2028\u0085end")) as stream:
        assert stream.headers["Cache-Control"] == "no-cache"
        assert stream.headers["X-Accel-Buffering"] == "no"
        for line in stream.iter_lines():
            if line.startswith("data: "):
                text += json.loads(line[6:])["token"]
    assert text == "naïve \N{GRINNING FACE}\u2028\u0085end"


def test_an_answer_made_again_and_an_edited_question(client: httpx.Client) -> None:
    first = client.post("/chat", json=say("one")).json()
    named = {"conversation_id": first["conversation_id"], "replaces": first["message_id"]}
    again = client.post("/chat", json=named).json()
    edited = read_stream(client, "/chat/stream", named | {"message": "[[say: two]]"})
    assert (again["response"], text_of(edited)) == ("one", "two")
    ids = [first["conversation_id"], again["conversation_id"], edited[0]["conversation_id"]]
    assert len(set(ids)) == 3
    pieces = [
        [message["content"] for message in client.get(f"/api/conversations/{each}/messages/").json()["results"]]
        for each in ids
    ]
    assert pieces == [["[[say: one]]", "one"], ["[[say: one]]", "one"], ["[[say: two]]", "two"]]


def test_cut_at_every_token_and_resumed(client: httpx.Client) -> None:
    """Resume is gapless: the parts read before and after the cut are the stored text, nothing lost or repeated."""
    whole = "".join(f"{n} " for n in range(1, 7))
    for cut in range(12):
        seen: list[Line] = []
        with client.stream("POST", "/chat/stream", json=count(6, delay_ms=5, cache_prompt=False)) as stream:
            for line in data_lines(stream):
                seen.append(line)
                if line["id"] == cut and (cut or len(seen) > 1):
                    break
        rest = read_stream(client, f"/chat/stream/{seen[0]['generation_id']}", headers={"Last-Event-ID": str(cut)})
        assert text_of(seen) + text_of(rest) == whole
        assert last_message(client, seen[0]["conversation_id"])["content"] == whole
        assert_one_end(rest)


def test_resumed_again_and_again_while_it_runs(client: httpx.Client) -> None:
    """Resume is gapless, the third time too: of a dozen connections, each is cut after three tokens."""
    lines: list[Line] = []
    with client.stream("POST", "/chat/stream", json=count(20, delay_ms=20)) as stream:
        lines += _three(stream)
    path = f"/chat/stream/{lines[0]['generation_id']}"
    while not lines[-1]["done"]:
        with client.stream("GET", path, params={"after": lines[-1]["id"]}) as stream:
            lines += _three(stream)
    tokens = [line["id"] for line in lines if line["token"] and not line["done"]]
    assert tokens == list(range(1, len(text_of(lines)) + 1))  # one token a character
    assert text_of(lines) == "".join(f"{n} " for n in range(1, 21))
    assert last_message(client, lines[0]["conversation_id"])["content"] == text_of(lines)


def _three(stream: httpx.Response) -> list[Line]:
    lines: list[Line] = []
    for line in data_lines(stream):
        lines.append(line)
        if line["done"] or sum(bool(line["token"]) for line in lines) == 3:
            break
    return lines


def test_two_readers_of_one_answer(client: httpx.Client, fake_stack: LiveStack) -> None:
    with client.stream("POST", "/chat/stream", json=count(15, delay_ms=20)) as stream:
        lines = data_lines(stream)
        first = next(lines)
        with ThreadPoolExecutor() as pool, httpx.Client(base_url=fake_stack.url, timeout=30) as other:
            second = pool.submit(read_stream, other, f"/chat/stream/{first['generation_id']}")
            mine = [first, *lines]
            assert text_of(second.result()) == text_of(mine) == "".join(f"{n} " for n in range(1, 16))


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 40, "²"])
def test_no_place_to_resume_from(after: str, client: httpx.Client) -> None:
    generation_id = client.post("/chat", json=say("x")).json()["generation_id"]
    response = client.get(f"/chat/stream/{generation_id}", params={"after": after})
    assert (response.status_code, response.json()["error"]["field"]) == (400, "after")


class TestOneEnd:
    """However an answer ends, its stream has one last line, and REST reports the same."""

    def test_stop(self, client: httpx.Client) -> None:
        lines = read_stream(client, "/chat/stream", say("a full stop"))
        assert_one_end(lines)
        assert lines[-1]["finish_reason"] == "stop"

    def test_length(self, client: httpx.Client) -> None:
        lines = read_stream(client, "/chat/stream", count(100, max_tokens=5))
        assert_one_end(lines)
        assert lines[-1]["finish_reason"] == "length"
        assert lines[-1]["usage"]["completion_tokens"] == 5

    def test_a_stop_string(self, client: httpx.Client) -> None:
        lines = read_stream(client, "/chat/stream", count(100, stop=["7 8"]))
        assert_one_end(lines)
        assert text_of(lines) == "1 2 3 4 5 6 "
        assert client.post("/chat", json=count(100, stop=["7 8"])).json()["response"] == "1 2 3 4 5 6 "

    def test_half_a_stop_string_at_the_end(self, client: httpx.Client) -> None:
        lines = read_stream(client, "/chat/stream", say("one two thr", stop=["three"]))
        assert text_of(lines) == "one two thr"

    def test_cancelled(self, client: httpx.Client) -> None:
        lines: list[Line] = []
        with client.stream("POST", "/chat/stream", json=count(1000, delay_ms=20)) as stream:
            for line in data_lines(stream):
                lines.append(line)
                if line["id"] == 4 and len(lines) < 20:
                    cancelled = client.post(f"/api/generations/{lines[0]['generation_id']}/cancel")
                    assert cancelled.status_code == 200
        assert_one_end(lines)
        assert lines[-1]["finish_reason"] == "cancelled"
        message = last_message(client, lines[0]["conversation_id"])
        assert (message["status"], message["content"]) == ("interrupted", text_of(lines))

    def test_out_of_time(self, client: httpx.Client) -> None:
        lines = read_stream(client, "/chat/stream", count(1000, delay_ms=50, timeout_s=0.6))
        assert_one_end(lines)
        assert lines[-1]["error"]["code"] == "timeout"
        response = client.post("/chat", json=count(1000, delay_ms=50, timeout_s=0.6))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        assert response.json()["error"]["generation_id"]

    def test_a_request_that_kills_the_model(self, client: httpx.Client) -> None:
        poison = {"messages": [{"role": "user", "content": "[[abort]]"}]}
        lines = read_stream(client, "/chat/stream", poison)
        assert_one_end(lines)
        assert lines[-1]["error"]["code"] == "runner_crashed"
        response = client.post("/chat", json=poison)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "runner_crashed")
        assert client.post("/chat", json=say("alive")).json()["response"] == "alive"


class TestLeaving:
    def test_a_stream_that_is_left_ends_after_the_grace(self, client: httpx.Client, store: "redis.Redis[str]") -> None:
        with client.stream("POST", "/chat/stream", json=count(1000, delay_ms=50)) as stream:
            lines = data_lines(stream)
            seen = [next(lines) for _ in range(6)]
            key = f"gemma:readers:{seen[0]['generation_id']}"
            assert store.zcard(key) == 1
        wait_until(lambda: store.zcard(key) == 0, timeout_secs=4, what="the reader is gone")
        wait_until(lambda: is_idle(client), timeout_secs=12, what="the answer is stopped")
        message = last_message(client, seen[0]["conversation_id"])
        assert (message["status"], message["finish_reason"]) == ("interrupted", "cancelled")
        assert message["content"].startswith("1 2")

    def test_a_silent_stream_is_left(self, client: httpx.Client, store: "redis.Redis[str]") -> None:
        with client.stream("POST", "/chat/stream", json=count(2, delay_ms=8000)) as stream:
            lines = data_lines(stream)
            key = f"gemma:readers:{next(lines)['generation_id']}"
            wait_until(lambda: store.zcard(key) == 1, timeout_secs=5, what="the reader is there")
        # Long before the next token: a server that notices a disconnect only by writing would be late.
        wait_until(lambda: store.zcard(key) == 0, timeout_secs=4, what="the reader is gone")
        wait_until(lambda: is_idle(client), timeout_secs=30, what="the answer is stopped")

    def test_chat_is_left(self, client: httpx.Client, fake_stack: LiveStack, store: "redis.Redis[str]") -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{fake_stack.url}/chat", json=count(1000, delay_ms=50), timeout=1)
        wait_until(lambda: not store.keys("gemma:readers:*"), timeout_secs=4, what="the reader is gone")
        wait_until(lambda: is_idle(client), timeout_secs=12, what="the answer is stopped")

    @pytest.mark.parametrize(("more", "headers"), [({}, {"Idempotency-Key": "left"}), ({"priority": "batch"}, {})])
    def test_chat_that_goes_on_alone(
        self, more: dict[str, object], headers: dict[str, str], client: httpx.Client, fake_stack: LiveStack
    ) -> None:
        body = count(40, delay_ms=50) | more
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{fake_stack.url}/chat", json=body, headers=headers, timeout=1)
        wait_until(lambda: is_idle(client), timeout_secs=20, what="the answer is complete")
        conversation = client.get("/api/conversations/?limit=1").json()["results"][0]["id"]
        message = last_message(client, conversation)
        assert (message["status"], message["content"]) == ("complete", "".join(f"{n} " for n in range(1, 41)))


class TestIdempotency:
    def test_twenty_at_once_are_one_generation(self, client: httpx.Client, fake_stack: LiveStack) -> None:
        def ask(_: int) -> tuple[int, str, str]:
            answer = httpx.post(
                f"{fake_stack.url}/chat", json=say("once"), headers={"Idempotency-Key": "twenty"}, timeout=30
            )
            return answer.status_code, answer.json().get("generation_id"), answer.json().get("response")

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(ask, range(20)))
        assert len(set(answers)) == 1
        assert answers[0][::2] == (200, "once")

    def test_the_same_key_for_another_body(self, client: httpx.Client) -> None:
        headers = {"Idempotency-Key": "one"}
        assert client.post("/chat", json=say("a"), headers=headers).status_code == 200
        response = client.post("/chat", json=say("b"), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "idempotency_key_reused")

    def test_a_key_also_finds_a_stream(self, client: httpx.Client) -> None:
        headers = {"Idempotency-Key": "stream"}
        first = read_stream(client, "/chat/stream", say("again"), headers)
        second = read_stream(client, "/chat/stream", say("again"), headers)
        assert first[0]["generation_id"] == second[0]["generation_id"]
        assert text_of(first) == text_of(second) == "again"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_web_process_that_ends_stops_nothing(number: signal.Signals, fake_stack: LiveStack) -> None:
    seen: list[Line] = []
    web, body = fake_stack.process("gemma-web"), count(30, delay_ms=60)
    try:
        with httpx.stream("POST", f"{fake_stack.url}/chat/stream", json=body, timeout=30) as stream:
            for line in data_lines(stream):
                seen.append(line)
                if line["id"] == 3 and len(seen) < 10:
                    web.send_signal(number)
    except httpx.HTTPError:
        assert number == signal.SIGKILL
    assert not seen[-1]["done"]
    if number == signal.SIGTERM:
        assert seen[-1]["status"]["state"] == "yielding"
    rest = _resume_when_back(fake_stack.url, seen)
    assert text_of(seen) + text_of(rest) == "".join(f"{n} " for n in range(1, 31))
    assert rest[-1]["finish_reason"] == "stop"


def _resume_when_back(url: str, seen: list[Line]) -> list[Line]:
    deadline = time.monotonic() + 20
    while True:
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                headers = {"Last-Event-ID": str(seen[-1]["id"])}
                lines = read_stream(client, f"/chat/stream/{seen[0]['generation_id']}", headers=headers)
        except httpx.HTTPError:
            lines = []
        if lines and lines[-1]["done"]:  # the old process may still have answered, with a notice like the first
            return lines
        assert time.monotonic() < deadline
        time.sleep(0.1)
