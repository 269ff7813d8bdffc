"""/v1/chat/completions of a running service, byte by byte."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from chat.api.openai.streams import is_waiting
from chat.schemas.decoding import decode
from chat.schemas.openai.chat_answers import ChatCompletionAnswer, ChatCompletionChunk
from tests.api.live import count, say
from tests.live_stack import LiveStack, wait_until

PATH = "/v1/chat/completions"
Chunk = dict[str, Any]


@pytest.fixture
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        yield client


def events_of(client: httpx.Client, body: dict[str, Any]) -> list[Chunk]:
    """The chunks of a stream, which ends with [DONE]."""
    with client.stream("POST", PATH, json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    chunks: list[Chunk] = [json.loads(item) for item in data]
    for chunk in chunks:
        decode(ChatCompletionChunk, chunk)
    return chunks


def text_of(chunks: list[Chunk], index: int = 0) -> str:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def finishes_of(chunks: list[Chunk]) -> list[tuple[int, str]]:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return sorted((choice["index"], choice["finish_reason"]) for choice in choices if choice["finish_reason"])


def active(client: httpx.Client) -> int:
    """The number of answers that the worker reports."""
    return int(client.get("/health").json()["active"])


def test_a_whole_answer(client: httpx.Client) -> None:
    response = client.post(PATH, json=say("Hello", metadata={"run": "7"}))
    answer = response.json()
    decode(ChatCompletionAnswer, answer)
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"], choice["logprobs"]) == ("Hello", "stop", None)
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (answer["metadata"], answer["model"]) == ({"run": "7"}, "fake-it")
    assert response.headers["X-Request-ID"]
    messages = client.get(f"/api/conversations/{answer['conversation_id']}/messages/").json()["results"]
    assert [message["content"] for message in messages] == ["[[say: Hello]]", "Hello"]


def test_a_stream_has_the_same_text_and_ends_once(client: httpx.Client) -> None:
    chunks = events_of(client, say('Hel"lo \u2028 😀', stream_options={"include_usage": True}))
    assert text_of(chunks) == 'Hel"lo \u2028 😀'
    assert finishes_of(chunks) == [(0, "stop")]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"] > 5) == ([], True)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("é😀", {}),  # several tokens for one character
        ("one <b", {"stop": "<br>"}),  # held back until it is no stop string
        ("one <br> two", {"stop": "<br>"}),
        ("é", {"n": 2}),
        ("é", {"tools": [{"type": "function", "function": {"name": "clock"}}]}),
        ("é", {"logprobs": True}),
    ],
)
def test_no_chunk_is_empty(text: str, more: dict[str, Any], client: httpx.Client) -> None:
    chunks = events_of(client, say(text, stream_options={"include_usage": True}, **more))
    assert text_of(chunks) == text.partition("<br>")[0]
    choices = [choice for chunk in chunks if "x_status" not in chunk for choice in chunk["choices"]]
    for choice in choices:
        delta = choice["delta"]
        assert delta.get("content") or "role" in delta or choice["finish_reason"] or choice["logprobs"], choice


def test_without_the_option_no_chunk_speaks_of_usage(client: httpx.Client) -> None:
    chunks = events_of(client, say("Hello"))
    assert not any("usage" in chunk for chunk in chunks)
    assert chunks[-1]["timings"]["predicted_n"] == len("Hello")


def test_length_and_stop(client: httpx.Client) -> None:
    assert finishes_of(events_of(client, say("Hello", max_tokens=2))) == [(0, "length")]
    answer = client.post(PATH, json=say("one two", stop=" t")).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == ("one", "stop")


@pytest.mark.parametrize("n", [2, 8])
def test_choices(n: int, client: httpx.Client) -> None:
    answer = client.post(PATH, json=say("Hello", n=n)).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["Hello"] * n
    assert answer["usage"]["completion_tokens"] == n * len("Hello")
    chunks = events_of(client, say("Hello", n=n))
    assert [text_of(chunks, index) for index in range(n)] == ["Hello"] * n
    assert finishes_of(chunks) == [(index, "stop") for index in range(n)]


@pytest.mark.parametrize("top", [0, 3])
def test_logprobs(top: int, client: httpx.Client) -> None:
    body = say("Hé", logprobs=True, top_logprobs=top)
    whole = client.post(PATH, json=body).json()["choices"][0]["logprobs"]["content"]
    pieces = [choice["logprobs"] for chunk in events_of(client, body) for choice in chunk["choices"]]
    streamed = [token for logprobs in pieces if logprobs for token in logprobs["content"]]
    assert whole == streamed
    assert bytes(byte for token in whole for byte in token["bytes"]).decode() == "Hé"
    assert all(token["logprob"] <= 0 for token in whole)
    assert all(len(token["top_logprobs"]) == max(1, top) for token in whole)


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ("one two three", {"stop": " t"}, "one"),
        ("one two three", {"stop": ["two", "e"]}, "on"),
        ("one two", {"stop": "one"}, ""),
        ("é😀 <b é", {"stop": "<br>"}, "é😀 <b é"),
        ("one <b", {"stop": "<br>"}, "one <b"),
        ("one <br", {"stop": "<br>", "max_tokens": 6}, "one <b"),
        ("é😀x", {"stop": "x"}, "é😀"),
        ("Hé", {"max_tokens": 2}, None),
        ("one two three", {"stop": " t", "n": 2}, "one"),
    ],
)
def test_the_tokens_of_a_stop_string_have_no_log_probability(
    text: str, more: dict[str, Any], expected: str | None, client: httpx.Client
) -> None:
    body = say(text, logprobs=True, store=False, **more)
    for choice in client.post(PATH, json=body).json()["choices"]:
        tokens = (choice["logprobs"] or {"content": []})["content"]
        chunks = [
            one for chunk in events_of(client, body) for one in chunk["choices"] if one["index"] == choice["index"]
        ]
        assert [token for one in chunks if one["logprobs"] for token in one["logprobs"]["content"]] == tokens
        spelled = bytes(byte for token in tokens for byte in token["bytes"])
        # A cut within a character leaves its bytes to the tokens.
        assert spelled == "Hé".encode()[:2] if expected is None else spelled.decode() == expected
        assert expected is None or choice["message"]["content"] == expected


@pytest.mark.parametrize("penalty", [{"presence_penalty": 100}, {"frequency_penalty": 100}])
def test_penalties_count_the_answer_and_on_request_the_last_tokens(
    penalty: dict[str, float], client: httpx.Client
) -> None:
    options = {"temperature": 0, "store": False, "max_tokens": 20} | penalty
    body = say("abc", **options)
    assert client.post(PATH, json=body).json()["choices"][0]["message"]["content"] == "abc"
    repeated = client.post(PATH, json=say("aba", **options)).json()["choices"][0]["message"]["content"]
    assert repeated.startswith("ab") and not repeated.startswith("aba")  # noqa: PT018  one text
    # As llama-server: all three letters are in the prompt.
    recent = client.post(PATH, json=body | {"repeat_last_n": 64}).json()["choices"][0]["message"]["content"]
    assert not recent.startswith("a")
    assert client.post(PATH, json=body | {"repeat_last_n": 0}).json()["choices"][0]["message"]["content"] == "abc"
    assert not client.post("/chat", json=body).json()["response"].startswith("a")
    raw = {"prompt": "[[say: abc]]"} | options
    assert client.post("/v1/completions", json=raw).json()["choices"][0]["text"] == "abc"
    response = client.post("/v1/responses", json={"input": "[[say: abc]]"} | options).json()
    assert response["output"][0]["content"][0]["text"] == "abc"


def test_a_prefill_is_continued(client: httpx.Client) -> None:
    body = say("Hello there")
    body["messages"] = [*body["messages"], {"role": "assistant", "content": "Hello"}]  # type: ignore[misc]
    answer = client.post(PATH, json=body).json()
    assert answer["choices"][0]["message"]["content"] == " there"
    assert answer["conversation_id"] is None


def test_a_conversation_goes_on(client: httpx.Client) -> None:
    first = client.post(PATH, json=say("Hello")).json()
    second = client.post(PATH, json=say("Again", conversation_id=first["conversation_id"])).json()
    history = [{"role": "user", "content": "[[say: Hello]]"}, {"role": "assistant", "content": "Hello"}]
    assert second["conversation_id"] == first["conversation_id"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 20
    unknown = client.post(PATH, json=say("Hello", conversation_id="6f1f2f44-3c5c-4d8e-9a53-0d3b3f9a6b10"))
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "conversation_id")
    whole = client.post(PATH, json={"messages": [*history, {"role": "user", "content": "[[say: Again]]"}]}).json()
    assert whole["choices"][0]["message"]["content"] == "Again"


def test_nothing_is_kept_without_store(client: httpx.Client) -> None:
    n_before = client.get("/api/conversations/").json()["count"]
    answer = client.post(PATH, json=say("Hello", store=False)).json()
    assert (answer["conversation_id"], answer["message_id"]) == (None, None)
    assert client.get("/api/conversations/").json()["count"] == n_before


def test_memories_are_cited(client: httpx.Client) -> None:
    client.post("/memory/add", json={"title": "Plan", "body": "The deadline for the garden is Friday."})
    body = say("It is Friday [1].", use_rag=True)
    body["messages"][0]["content"] += " When is the deadline for the garden?"  # type: ignore[index]
    [annotation] = client.post(PATH, json=body).json()["choices"][0]["message"]["annotations"]
    assert annotation["url_citation"]["start_index"] == len("It is Friday ")
    assert annotation["source"]["title"] == "Plan"
    streamed = [choice["delta"] for chunk in events_of(client, body) for choice in chunk["choices"]]
    assert [delta["annotations"] for delta in streamed if "annotations" in delta] == [[annotation]]
    refused = client.post(PATH, json=body | {"n": 2}).json()["error"]
    assert (refused["code"], refused["param"]) == ("unsupported", "n")


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_have_their_status_before_the_first_byte(stream: bool, client: httpx.Client) -> None:
    long = client.post(PATH, json={"messages": [{"role": "user", "content": "x" * 9000}], "stream": stream})
    error = long.json()["error"]
    assert (long.status_code, error["type"], error["code"]) == (
        400,
        "exceed_context_size_error",
        "context_length_exceeded",
    )
    assert (error["n_prompt_tokens"] > 9000, error["n_ctx"]) == (True, 8192)
    history = [{"role": role, "content": "x" * 900} for role in ("user", "assistant")] * 5
    body = {"messages": [*history, {"role": "user", "content": "[[say: Hello]]"}], "stream": stream}
    assert client.post(PATH, json=body | {"strategy": "error"}).json()["error"]["code"] == "context_length_exceeded"
    assert client.post(PATH, json=body).status_code == 200
    unknown = client.post(PATH, json=say("Hello", model="gpt-4o", stream=stream))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    bad = client.post(PATH, content=b"{", headers={"Content-Type": "application/json"})
    assert (bad.status_code, bad.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_key_stands_for_one_generation(client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "openai-once"}
    answers = [client.post(PATH, json=say("Hello"), headers=headers).json() for _ in range(2)]
    assert answers[0]["id"] == answers[1]["id"]
    refused = client.post(PATH, json=say("Hello", n=2), headers={"Idempotency-Key": "openai-twice"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_answers(n: int, stream: bool, client: httpx.Client) -> None:
    body = count(2000, delay_ms=20, max_tokens=5000) | {"n": n, "stream": stream}
    if stream:
        with client.stream("POST", PATH, json=body) as response:
            assert next(response.iter_lines())
            wait_until(lambda: active(client) == n, timeout_secs=15, what="the answers run")
    else:
        with pytest.raises(httpx.ReadTimeout):
            client.post(PATH, json=body, timeout=4.0)
    wait_until(lambda: active(client) == 0, timeout_secs=15, what="the answers without a reader stop")


def test_an_answer_that_fails_late(client: httpx.Client) -> None:
    body = count(2000, delay_ms=20, timeout_s=0.5)
    whole = client.post(PATH, json=body)
    assert (whole.status_code, whole.json()["error"]["type"]) == (504, "server_error")
    with client.stream("POST", PATH, json=body | {"stream": True}) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    first, last = (json.loads(line.removeprefix("data: ")) for line in (lines[0], lines[-1]))
    assert last["error"]["code"] == "timeout"
    assert first["id"] == f"chatcmpl-{last['error']['generation_id'].replace('-', '')}"
    assert "data: [DONE]" not in lines


@pytest.mark.parametrize(
    ("status", "waited_secs", "expected"),
    [
        ({"state": "prefill", "progress": 0.0}, 0.0, False),
        ({"state": "prefill", "progress": 0.6}, 0.1, False),
        ({"state": "prefill", "progress": 0.6}, 1.0, True),
        ({"state": "prefill", "progress": 1.0}, 9.0, False),
        ({"state": "prefill"}, 1.0, True),
        ({"state": "queued", "position": 2}, 0.0, True),
        ({"state": "loading"}, 0.0, True),
    ],
)
def test_a_prompt_that_is_computed_at_once_is_no_waiting(
    status: dict[str, object], waited_secs: float, expected: bool
) -> None:
    assert is_waiting({"status": status}, time.monotonic() - waited_secs) is expected


def test_progress_of_the_prompt_on_request(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": f"[[say: Hello]] {uuid.uuid4()} " + "word " * 500}]}
    for n_reused in (0, 1000):
        chunks = events_of(client, body | {"return_progress": True, "store": False})
        progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        assert len(progress) >= 2
        assert progress[0]["processed"] == progress[0]["cache"] >= n_reused
        assert progress[-1]["processed"] == progress[-1]["total"] > 2000
        assert all(step["time_ms"] >= 0 for step in progress)
        processed = [step["processed"] for step in progress]
        assert processed == sorted(set(processed))
        assert {(step["cache"], step["total"]) for step in progress} == {(progress[0]["cache"], progress[0]["total"])}
        assert text_of(chunks) == "Hello"


@pytest.mark.parametrize("logprobs", [False, True])
def test_what_an_answer_waits_for_is_in_its_stream(logprobs: bool, client: httpx.Client) -> None:
    blocking = [count(30, delay_ms=25, store=False, logprobs=logprobs) for _ in range(5)]
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(events_of, client, body) for body in blocking]
        chunks = [chunk for stream in streams for chunk in stream.result()]
    waits = [chunk["x_status"] for chunk in chunks if "x_status" in chunk]
    assert {status["state"] for status in waits} >= {"queued"}
    deltas = [choice["delta"] for chunk in chunks if "x_status" in chunk for choice in chunk["choices"]]
    assert deltas == [{}] * len(waits)
    # Clients that asked for them read them in each chunk between the first and the last.
    inner = [choice for chunk in chunks for choice in chunk["choices"] if "role" not in choice["delta"]]
    assert {choice["logprobs"] is not None for choice in inner if not choice["finish_reason"]} == {logprobs}
