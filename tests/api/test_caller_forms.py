"""Requests as existing callers write them, over real sockets: sizes of 0, -1 and more, empty stops, plain messages."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import websockets

from tests.api.live import LiveUser, answer_over, assert_one_end, count, make_users, read_stream, say, text_of
from tests.live_stack import LiveStack

Json = dict[str, Any]
FramesOf = Callable[[Json], list[Json]]
TEXT = "as it was meant"
MESSAGE = f"[[say: {TEXT}]]"
# Each means the same as the plain request.
CHAT_FORMS: list[Json] = [
    {"message": MESSAGE},
    {"message": MESSAGE, "conversation_id": ""},
    say(TEXT, top_k=0),
    say(TEXT, top_k=-1),
    say(TEXT, max_tokens=0),
    say(TEXT, max_tokens=0.0),
    say(TEXT, max_tokens=-1),
    say(TEXT, stop=[""]),
    say(TEXT, stop=""),
    say(TEXT, stop=["", "never seen"]),
    say(TEXT, context="a note"),
    say(TEXT, context={"content": "a note"}),
    say(TEXT, context=[{"content": "a note", "source": "a.txt"}, {"text": "b"}, "c"]),
    say(TEXT, use_rag=True, rag_top_k=0, last_n_transcripts=0),
    say(TEXT, use_rag=True, rag_top_k=10_000, last_n_transcripts=-1),
    say(TEXT, use_rag=True, rag_top_k="3", last_n_transcripts="2", speakers="Ann", start_date=""),
]
REFUSED_FORMS: list[tuple[Json, str]] = [
    ({"rag_top_k": -2}, "rag_top_k"),
    ({"rag_top_k": "many"}, "rag_top_k"),
    ({"last_n_transcripts": 1.5}, "last_n_transcripts"),
    ({"max_tokens": -2}, "max_tokens"),
    ({"max_tokens": "20"}, "max_tokens"),
    ({"top_k": -2}, "top_k"),
    ({"stop": [None]}, "stop[0]"),
    ({"context": [{"title": "no text"}]}, "context[0]"),
]


@pytest.fixture(scope="module")
def user(fake_stack: LiveStack) -> LiveUser:
    return make_users(fake_stack, "ann-forms")[0]


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack, user: LiveUser) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=60, headers=user.headers) as client:
        for number in range(3):
            segments = [{"text": f"the harbour is closed {number}", "speaker": "Ann", "emotion": "joy"}]
            client.post("/index/transcript", json={"job_id": f"forms-{number}", "segments": segments})
        yield client


@pytest.fixture
def frames_of(fake_stack: LiveStack, user: LiveUser) -> Callable[[Json], list[Json]]:
    url = fake_stack.url.replace("http", "ws") + "/ws/chat"

    async def ask(body: Json) -> list[Json]:
        async with websockets.connect(url, additional_headers=user.headers) as socket:
            return await answer_over(socket, {"type": "chat"} | body)

    return lambda body: asyncio.run(ask(body))


@pytest.mark.parametrize("body", CHAT_FORMS, ids=json.dumps)
def test_a_chat_on_every_door(client: httpx.Client, frames_of: FramesOf, body: Json) -> None:
    answer = client.post("/chat", json=body)
    assert (answer.status_code, answer.json().get("response")) == (200, TEXT), answer.text
    lines = read_stream(client, "/chat/stream", body)
    assert_one_end(lines)
    assert text_of(lines) == TEXT
    assert text_of(frames_of(body)) == TEXT


@pytest.mark.parametrize(("more", "field"), REFUSED_FORMS, ids=str)
def test_what_means_nothing_is_named(client: httpx.Client, frames_of: FramesOf, more: Json, field: str) -> None:
    body = say(TEXT) | more
    for path in ("/chat", "/chat/stream"):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)
    assert frames_of(body)[-1]["error"]["field"] == field


def test_a_message_begins_a_conversation(client: httpx.Client) -> None:
    first = client.post("/chat", json={"message": MESSAGE}).json()
    messages = client.get(f"/api/conversations/{first['conversation_id']}/messages/").json()
    assert [row["content"] for row in messages["results"]] == [MESSAGE, TEXT]
    again = {"message": MESSAGE, "conversation_id": first["conversation_id"]}
    assert client.post("/chat", json=again).json()["conversation_id"] == first["conversation_id"]


@pytest.mark.parametrize("more", [{"max_tokens": 0}, {"stop": [""]}, {"stop": ""}, {"top_k": 0}, {"top_k": -1.0}])
def test_a_raw_prompt(client: httpx.Client, more: Json) -> None:
    answer = client.post("/generate", json={"prompt": MESSAGE} | more)
    assert (answer.status_code, answer.json().get("text")) == (200, TEXT), answer.text


def test_an_empty_stop_does_not_end_an_answer(client: httpx.Client) -> None:
    answer = client.post("/chat", json=count(30, stop=["", " 4"])).json()
    assert answer["response"].split() == ["1", "2", "3"]


@pytest.mark.parametrize("path", ["/search/semantic", "/search"])
@pytest.mark.parametrize(
    ("more", "n_hits"),
    [
        ({}, 3),
        ({"top_k": 0}, 3),
        ({"top_k": 1}, 1),
        ({"top_k": "2"}, 2),
        ({"top_k": 2.0}, 2),
        ({"top_k": 500}, 3),
        ({"top_k": -1}, 3),
        ({"top_k": 10**18}, 3),
        ({"last_n_transcripts": 0}, 3),
        ({"last_n_transcripts": 2}, 2),
        ({"last_n_transcripts": "1"}, 1),
        ({"speakers": "ann"}, 3),
        ({"speakers": [""]}, 3),
        ({"speakers": "Bob"}, 0),
        ({"doc_type": "", "start_date": "", "end_date": ""}, 3),
    ],
)
def test_a_search(client: httpx.Client, path: str, more: Json, n_hits: int) -> None:
    answer = client.post(path, json={"query": "is the harbour closed", "doc_type": "transcript_segment"} | more)
    assert (answer.status_code, len(answer.json().get("results", ()))) == (200, n_hits), answer.text


@pytest.mark.parametrize("limit", [0, -1, "", 101, 10**15, "5"])
def test_a_search_of_notes(client: httpx.Client, limit: object) -> None:
    client.post("/memory/add", json={"title": "Harbour", "body": "It opens on Monday."})
    answer = client.post("/memory/search", json={"query": "harbour", "limit": limit})
    assert (answer.status_code, answer.json()["count"] > 0) == (200, True), answer.text


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({}, 3),
        ({"last_n_transcripts": 0}, 3),
        ({"last_n_transcripts": 2}, 2),
        ({"emotions": ""}, 3),
        ({"emotions": "joy"}, 3),
    ],
)
def test_counting(client: httpx.Client, more: Json, count: int) -> None:
    answer = client.post("/transcripts/count", json=more)
    assert (answer.status_code, answer.json()["count"]) == (200, count)


@pytest.mark.parametrize("path", ["/transcripts/recent", "/memory/list", "/api/conversations/"])
@pytest.mark.parametrize("limit", ["", "0", "-1", "5", "5.0", "500", "501", "100000", "9" * 40, "0" * 5000])
def test_a_list_of_any_size(client: httpx.Client, path: str, limit: str) -> None:
    answer = client.get(path, params={"limit": limit, "offset": ""})
    assert answer.status_code == 200, answer.text


def test_the_size_of_a_list(client: httpx.Client) -> None:
    sizes = {"2": 2, "-1": 3, "501": 3, "0": 3, "2.0": 2}
    for limit, size in sizes.items():
        assert client.get("/transcripts/recent", params={"limit": limit}).json()["count"] == size, limit
    assert client.get("/memory/list", params={"offset": "9" * 30}).json()["memories"] == []


@pytest.mark.parametrize("path", ["/transcripts/recent", "/memory/list", "/api/conversations/"])
@pytest.mark.parametrize("limit", ["many", "-2", "1.5", "1e3", "0x10", " ", "--1", "٣"])
def test_a_size_that_means_nothing_is_named(client: httpx.Client, path: str, limit: str) -> None:
    answer = client.get(path, params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "limit")
    assert "limit must be" in answer.json()["error"]["message"]
