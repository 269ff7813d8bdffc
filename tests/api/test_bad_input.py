"""Bad input, row by row, against a running service: status and code, nothing stored, and the service goes on."""

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import websockets

from gemma_project.broker_url import socket_url
from gemma_project.supervisor import valkey
from gemma_project.supervisor.tether import tethered
from tests.api.live import make_users
from tests.live_stack import LiveStack, wait_until

HELLO = [{"role": "user", "content": "Hello"}]
JSON = {"Content-Type": "application/json"}
NOBODY = "6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"
TABLES = ("inference_generation", "chat_conversation", "chat_message")


class Row(NamedTuple):
    """A bad request. ``field``: the field that the error has to name, if it is about one."""

    name: str
    body: Any
    status: int
    code: str
    field: str | None = None
    headers: dict[str, str] = JSON


def body_with(**fields: object) -> dict[str, object]:
    return {"messages": HELLO} | fields


BAD, FIELD0 = "invalid_request", "messages[0].content"
UTF8_JSON = json.dumps(body_with()).encode()


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def typed(content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type}


ROWS = [
    Row("no messages", {}, 400, BAD, "messages"),
    Row("empty messages", body_with(messages=[]), 400, BAD, "messages"),
    Row("null messages", body_with(messages=None), 400, BAD, "messages"),
    Row("messages is text", body_with(messages="Hello"), 400, BAD, "messages"),
    Row("unknown role", body_with(messages=[{"role": "robot", "content": "x"}]), 400, BAD, "messages[0].role"),
    Row("content is a number", body_with(messages=user(7)), 400, BAD, FIELD0),
    Row("a part without text", body_with(messages=user([{"type": "text"}])), 400, BAD, "messages[0].content[0].text"),
    Row(
        "a part that is an image",
        body_with(messages=user([{"type": "image_url"}])),
        400,
        BAD,
        "messages[0].content[0].type",
    ),
    Row("content is null", body_with(messages=user(None)), 400, BAD, FIELD0),
    Row("content is empty", body_with(messages=user("")), 400, BAD, FIELD0),
    Row("a lone surrogate", body_with(messages=user("\ud800")), 400, BAD, FIELD0),
    Row("a NUL", body_with(messages=user("a\0b")), 400, BAD, FIELD0),
    Row("system later", body_with(messages=[*HELLO, {"role": "system", "content": "x"}]), 400, BAD, "messages[1].role"),
    Row("2 MB of text", body_with(messages=user("x" * 2_000_000)), 413, "body_too_large"),
    Row("longer than the context", body_with(messages=user("x" * 20_000)), 413, "context_overflow", "messages"),
    Row("max_tokens negative", body_with(max_tokens=-5), 400, BAD, "max_tokens"),
    Row("max_tokens a million", body_with(max_tokens=1_000_000), 400, BAD, "max_tokens"),
    Row("max_tokens one too many", body_with(max_tokens=8193), 400, BAD, "max_tokens"),
    Row("temperature hot", body_with(temperature="hot"), 400, BAD, "temperature"),
    Row("temperature NaN", UTF8_JSON[:-1] + b', "temperature": NaN}', 400, BAD, "temperature"),
    Row("temperature infinite", UTF8_JSON[:-1] + b', "temperature": 1e999}', 400, BAD, "temperature"),
    Row("temperature -1", body_with(temperature=-1), 400, BAD, "temperature"),
    Row("10,000 stop strings", body_with(stop=[str(n) for n in range(10_000)]), 400, BAD, "stop"),
    Row("invalid UTF-8", b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', 400, "invalid_encoding"),
    Row("UTF-16", json.dumps(body_with()).encode("utf-16"), 400, "invalid_encoding"),
    Row("invalid JSON", b"{messages: []}", 400, "invalid_json"),
    Row("half a JSON", b'{"messages": [{"role": "user"', 400, "invalid_json"),
    Row("an empty body", b"", 400, "invalid_json"),
    Row("a JSON list", b"[]", 400, BAD),
    Row("JSON text", b'"Hello"', 400, BAD),
    Row("JSON null", b"null", 400, BAD),
    Row("JSON nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000, 400, "invalid_json"),
    Row("objects nested 50,000 deep", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "invalid_json"),
    Row("a number of 10,000 digits", b'{"messages": ' + b"9" * 10_000 + b"}", 400, "invalid_json"),
    Row("no content type", UTF8_JSON, 415, "unsupported_media_type", None, typed("")),
    Row("plain text", UTF8_JSON, 415, "unsupported_media_type", None, typed("text/plain")),
    Row("a form", b"messages=Hello", 415, "unsupported_media_type", None, typed("application/x-www-form-urlencoded")),
    Row(
        "multipart", b"--x\r\n\r\n--x--", 415, "unsupported_media_type", None, typed("multipart/form-data; boundary=x")
    ),
    Row("Latin-1", UTF8_JSON, 415, "unsupported_media_type", None, typed("application/json; charset=latin-1")),
    Row("unknown conversation", {"conversation_id": NOBODY, "message": "x"}, 404, "not_found", "conversation_id"),
    Row("replaces without its conversation", body_with(replaces=NOBODY), 400, BAD, "replaces"),
    Row("an id that is none", {"conversation_id": "../1", "message": "x"}, 404, "not_found", "conversation_id"),
    Row("an endless key", body_with(), 400, BAD, None, JSON | {"Idempotency-Key": "k" * 256}),
]


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        yield client


def stored(stack: LiveStack) -> dict[str, int]:
    """Return the number of rows of all tables."""
    database = sqlite3.connect(stack.data_dir / "gemma.sqlite3")
    try:
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}  # noqa: S608
    finally:
        database.close()


def assert_goes_on(client: httpx.Client, *, store: bool = False) -> None:
    answer = client.post("/chat", json={"messages": [{"role": "user", "content": "[[say: fine]]"}], "store": store})
    assert (answer.status_code, answer.json().get("response")) == (200, "fine"), answer.text


def assert_told(response: httpx.Response, row: Row) -> None:
    assert response.headers["Content-Type"].startswith("application/json")
    error = response.json()["error"]
    assert (response.status_code, error["code"], error.get("field")) == (row.status, row.code, row.field)
    assert error["message"]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_row(row: Row, fake_stack: LiveStack, client: httpx.Client) -> None:
    before = stored(fake_stack)
    raw = row.body if isinstance(row.body, bytes) else json.dumps(row.body).encode()
    for path in ("/chat", "/chat/stream"):
        assert_told(client.post(path, content=raw, headers=row.headers), row)
    assert stored(fake_stack) == before
    assert_goes_on(client)


@pytest.mark.parametrize("max_tokens", [8193, 65_537, 1_000_000])
def test_too_many_tokens_are_refused_with_the_size_in_use(client: httpx.Client, max_tokens: int) -> None:
    """GEMMA_CONTEXT_SIZE is 65536 here, the model has 8192."""
    error = client.post("/chat", json=body_with(max_tokens=max_tokens)).json()["error"]
    assert error["message"] == f"max_tokens is {max_tokens}, but the context has 8192 tokens"


def test_too_long_a_prompt_is_told_with_both_counts(client: httpx.Client) -> None:
    body = body_with(messages=[{"role": "user", "content": "x" * 20_000}])
    error = client.post("/chat", json=body).json()["error"]
    assert error["prompt_tokens"] > 20_000
    assert error["context_size"] == 8192


def test_a_large_body_without_a_length(fake_stack: LiveStack, client: httpx.Client) -> None:
    before = stored(fake_stack)
    response = client.post("/chat", content=(b" " * 65_536 for _ in range(32)), headers=JSON)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
    assert stored(fake_stack) == before
    assert_goes_on(client)


def test_fifty_megabytes_leave_no_trace(fake_stack: LiveStack, client: httpx.Client) -> None:
    web = fake_stack.process("gemma-web")
    before, n_written = web.memory_info().rss, web.io_counters().write_bytes
    for content in (b" " * 50_000_000, (b" " * 1_000_000 for _ in range(50))):
        response = client.post("/chat", content=content, headers=JSON)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
    assert web.memory_info().rss - before < 20_000_000
    assert web.io_counters().write_bytes - n_written < 5_000_000
    assert_goes_on(client)


def test_a_transcript_may_be_larger_than_other_bodies(client: httpx.Client) -> None:
    measured = {"loudness": [0.25] * 2500}
    sentences = [f"Loud and clear, the {number}th time." for number in range(100)]
    segments = [{"text": text, "start_time": 0, "end_time": 1, "audio_metrics": measured} for text in sentences]
    body = {"job_id": "long", "session_id": "s", "full_text": "", "audio_duration": 1, "segments": segments}
    answer = client.post("/index/transcript", json=body)
    assert (answer.status_code, answer.json()["segments_indexed"]) == (200, 100)
    assert len(answer.request.content) > 1_048_576
    assert client.delete("/transcript/long").status_code == 200


def test_another_users_conversation(fake_stack: LiveStack, client: httpx.Client) -> None:
    conversation = client.post("/api/conversations/", json={"title": "mine"}).json()["id"]
    [ben] = make_users(fake_stack, "ben")
    before = stored(fake_stack)
    row = Row("", {"conversation_id": conversation, "message": "x"}, 404, "not_found", "conversation_id")
    for path in ("/chat", "/chat/stream"):
        assert_told(client.post(path, json=row.body, headers=ben.headers), row)
    assert stored(fake_stack) == before
    assert_goes_on(client)


def test_cancel_of_a_finished_generation(fake_stack: LiveStack, client: httpx.Client) -> None:
    answer = client.post("/chat", json=body_with()).json()
    before = stored(fake_stack)
    for _ in range(3):
        response = client.post(f"/api/generations/{answer['generation_id']}/cancel")
        assert (response.status_code, response.json()["error"]["code"]) == (409, "already_ended")
    assert stored(fake_stack) == before
    assert_goes_on(client)


@pytest.mark.parametrize("after", ["x", "-1", "²", "9" * 30, "0" * 12 + "9" * 30, "0" * 5000])
def test_resuming_behind_what_is_no_token(client: httpx.Client, after: str) -> None:
    path = f"/chat/stream/{client.post('/chat', json=body_with()).json()['generation_id']}"
    response = client.get(path, params={"after": after})
    assert (response.status_code, response.json()["error"].get("field")) == (400, "after")
    assert_goes_on(client)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_method_that_is_not_served(method: str, client: httpx.Client) -> None:
    response = client.request(method, "/chat")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"


OTHER_FRAMES: list[tuple[str, str | bytes, str]] = [
    ("not JSON", "hello", "invalid_json"),
    ("half a JSON", '{"type": "chat"', "invalid_json"),
    ("empty", "", "invalid_json"),
    ("binary rubbish", b"\xff\xfe", "invalid_encoding"),
    ("a list", "[]", "invalid_request"),
    ("a number", "7", "invalid_request"),
    ("nested 100,000 deep", "[" * 100_000, "invalid_json"),
    ("no type", "{}", "invalid_request"),
    ("unknown type", '{"type": "dance"}', "invalid_request"),
    ("an endless type", json.dumps({"type": "x" * 900_000}), "invalid_request"),
    ("an endless type of another kind", json.dumps({"type": ["x" * 900_000]}), "invalid_request"),
    ("an endless type of signs", json.dumps({"type": "\0" * 100_000}), "invalid_request"),
    ("a type that is no text", '{"type": {"a": 1}}', "invalid_request"),
    ("larger than a body may be", json.dumps({"type": "chat", "message": "x" * 1_048_576}), "body_too_large"),
    ("a key of another kind", json.dumps({"type": "chat", "idempotency_key": 7} | body_with()), "invalid_request"),
    (
        "an endless request id",
        json.dumps({"type": "chat", "request_id": "x" * 100_000} | body_with()),
        "invalid_request",
    ),
    ("a message that does not fit", json.dumps({"type": "chat", "message": "x" * 100_000}), "context_overflow"),
    ("cancel of nothing", '{"type": "cancel"}', "not_found"),
    ("cancel of a number", '{"type": "cancel", "generation_id": 7}', "not_found"),
    ("resume of nobody's", json.dumps({"type": "resume", "generation_id": NOBODY}), "not_found"),
    ("resume behind text", json.dumps({"type": "resume", "generation_id": NOBODY, "after": "x"}), "invalid_request"),
]
FRAMES = OTHER_FRAMES + [
    (row.name, json.dumps({"type": "chat"} | row.body), row.code)
    for row in ROWS
    if isinstance(row.body, dict) and row.headers is JSON and row.code != "body_too_large"
]


def test_frames_over_one_socket(fake_stack: LiveStack) -> None:
    """Bad frames one after another on one socket, which is not closed and answers a good one at the end."""
    before = stored(fake_stack)
    asyncio.run(_send_all_frames(fake_stack.url.replace("http", "ws") + "/ws/chat"))
    after = stored(fake_stack)
    assert after == before | {"inference_generation": before["inference_generation"] + 1}  # the good one, not kept


async def _send_all_frames(url: str) -> None:
    async with websockets.connect(url) as socket, asyncio.timeout(60):
        for name, frame, code in FRAMES:
            await socket.send(frame)
            answer = json.loads(await socket.recv())
            assert (answer["type"], answer["error"]["code"]) == ("error", code), name
            assert len(answer["error"]["message"]) < 300, name
            if code == "context_overflow" and "message" in json.loads(frame):
                assert answer["error"]["field"] == "message", name
        good = {"type": "chat", "messages": [{"role": "user", "content": "[[say: fine]]"}], "store": False}
        await socket.send(json.dumps(good))
        text = ""
        while (line := json.loads(await socket.recv()))["type"] != "done":
            text += line["token"]
        assert text + line["token"] == "fine"


def test_a_locked_database(fake_stack: LiveStack, client: httpx.Client) -> None:
    before = stored(fake_stack)
    holder = sqlite3.connect(fake_stack.data_dir / "gemma.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        for path in ("/chat", "/chat/stream", "/generate"):
            response = client.post(path, json=body_with(prompt="x"))
            assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
            assert response.headers["Retry-After"]
        assert client.get("/health").status_code == 200  # it reads
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert stored(fake_stack) == before
    assert_goes_on(client)


class OwnValkey:
    """A Redis that the test may take away."""

    def __init__(self, directory: Path) -> None:
        self.socket_path, self._data_dir = directory / "v.sock", directory / "data"
        valkey.prepare_directories(self.socket_path, self._data_dir)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = tethered(valkey.command(self.socket_path, self._data_dir))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: valkey.answers(self.socket_path), timeout_secs=10, what="Valkey answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def test_redis_gone(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> None:
    own = OwnValkey(tmp_path_factory.mktemp("v"))
    own.start()
    stack = LiveStack(backend="fake", environment={"REDIS_URL": socket_url(own.socket_path)})
    request.addfinalizer(own.kill)
    request.addfinalizer(stack.clean_up)
    stack.start()
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        assert_goes_on(client)
        before = stored(stack)
        own.kill()
        for path in ("/chat", "/chat/stream", "/generate"):
            response = client.post(path, json=body_with(prompt="x"))
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (503, "store_unavailable")
            assert int(response.headers["Retry-After"]) >= 1
            assert str(own.socket_path) not in response.text
        assert client.get("/health").status_code == 503
        assert client.get("/api/conversations/").status_code == 200  # routes without Redis work on
        assert stored(stack) == before
        own.start()
        assert_goes_on(client)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("this is not a model" * 1000)


def _truncated(path: Path, model: Path) -> None:
    with model.open("rb") as whole:
        path.write_bytes(whole.read(20_000_000))


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "no GGUF", "a folder", pytest.param("truncated", marks=pytest.mark.real_model)]
)
def test_a_model_file_that_cannot_be_used(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "model.gguf"
    if kind == "empty":
        _empty(path)
    elif kind == "no GGUF":
        _text(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "truncated":
        _truncated(path, request.getfixturevalue("model_path"))
    stack = LiveStack(backend="llama", environment={"GEMMA_MODEL_PATH": str(path)})
    request.addfinalizer(stack.clean_up)
    stack.start(wait=False)
    assert stack.wait(60) == 1
    assert str(path) in stack.output
    assert "Traceback" not in stack.output
