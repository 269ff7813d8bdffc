"""Public bug reports of other servers and front ends, replayed against a running service.

Each test names the reports by project and number. Reports that need the real model are in ``tests/e2e``.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
import pytest

from tests.api.live import count, read_stream, text_of
from tests.live_stack import LiveStack, wait_until

Body = dict[str, Any]
Check = Callable[[httpx.Response], object]
V1 = "/v1/chat/completions"


def asks(text: str, **fields: object) -> Body:
    return {"messages": [{"role": "user", "content": text}]} | fields


def said(text: str, **fields: object) -> Body:
    return asks(f"[[say: {text}]]", **fields)


def is_text(expected: str, finish_reason: str = "stop") -> Check:
    def check(response: httpx.Response) -> None:
        [choice] = response.json()["choices"]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        assert (text, choice["finish_reason"]) == (expected, finish_reason)

    return check


def is_refused(field: str) -> Check:
    def check(response: httpx.Response) -> None:
        error = response.json()["error"]
        assert error["message"]
        assert error.get("param", error.get("field")) == field

    return check


class Report(NamedTuple):
    """A request of a report. The statuses are those that are right here; none of them is a 5xx."""

    name: str
    path: str
    body: Any
    status: int
    check: Check = lambda response: None


REPORTS = [
    Report("vllm 7632, 7283: an empty prompt ended the engine", "/v1/completions", {"prompt": ""}, 200),
    Report("vllm 7746: a list of one empty prompt", "/v1/completions", {"prompt": [""]}, 200),
    Report("vllm 35231: negative token ids", "/v1/completions", {"prompt": [[-1]]}, 400),
    Report("vllm 35231: negative token ids, flat", "/v1/completions", {"prompt": [-1]}, 400),
    Report(
        "vllm 6866: logit_bias beyond the vocabulary",
        V1,
        asks("Hi", logit_bias={"99999999": 5}),
        400,
        is_refused("logit_bias"),
    ),
    Report("vllm 1045: an empty logit_bias", V1, said("yes", logit_bias={}), 200, is_text("yes")),
    Report("vllm 10432: max_tokens 0 ended the worker", V1, said("yes", max_tokens=0), 200),
    Report("vllm 16836: ten log-probabilities", V1, said("yes", logprobs=True, top_logprobs=10), 200, is_text("yes")),
    Report("vllm 11089: a stop text that never comes", V1, said("Hello", stop=["zzz"]), 200, is_text("Hello")),
    Report("ollama 4524: own stop texts beside the model's", V1, said("a b", stop=["\nObs"]), 200, is_text("a b")),
    Report(
        "koboldcpp 643: more tokens than the context", V1, asks("x", max_tokens=15821), 400, is_refused("max_tokens")
    ),
    Report("open-webui 6514: content as a list of parts", V1, {
        "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "temperature": 1, "stream": False,
        "messages": [
            {"role": "system", "content": "Du bist ein hilfreicher Assistent."},
            {"role": "user", "content": [{"type": "text", "text": "[[say: gut]]"}]},
        ],
    }, 200, is_text("gut")),
    Report("koboldcpp 643: stop null, an empty user", V1, said(
        "fine", stop=None, logit_bias={}, max_tokens=1582, n=1, user="", frequency_penalty=0.0
    ), 200, is_text("fine")),
    Report("lmstudio-bug-tracker 2: an empty system message", V1, {
        "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "[[say: fine]]"}],
        "max_tokens": -1, "temperature": 0.7,
    }, 200, is_text("fine")),
    Report("llama.cpp 5435: a grammar that is none", V1, asks("Hi", grammar='root ::= ("'), 400),
    Report("TensorRT-LLM 17158: NaN as top_p", V1, b'{"messages":[{"role":"user","content":"x"}],"top_p":NaN}', 400),
    Report("open-webui 15616: a NUL in a message", V1, asks("a\0b"), 400, is_refused("messages[0].content")),
    Report("ollama 5159: a body in a shell's quotes", V1, b"'{\"model\": \"any\"}'", 400),
    Report("vllm 31870: a role that is none", V1, {"messages": [{"role": "x", "content": "x"}]}, 400),
    Report("omlx 2386: a stop text that begins another", V1, said(
        "done >>> UPDATED\nmore", stop=[">>> UPDATED", ">>> UPDATED\n"]
    ), 200, is_text("done ")),
    Report("omlx 2386: the beginning of a stop text alone", V1, said(
        "done >>> UPD", stop=[">>> UPDATED", ">>> UPDATED\n"]
    ), 200, is_text("done >>> UPD")),
]  # fmt: skip


@pytest.fixture(scope="module")
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        yield client


def goes_on(client: httpx.Client) -> None:
    """ollama 2792: the request after a strange one hung."""
    answer = client.post(V1, json=said("still here"))
    assert answer.json()["choices"][0]["message"]["content"] == "still here"


@pytest.mark.parametrize("report", REPORTS, ids=[report.name for report in REPORTS])
def test_report(report: Report, client: httpx.Client) -> None:
    raw = report.body if isinstance(report.body, bytes) else json.dumps(report.body).encode()
    response = client.post(report.path, content=raw, headers={"Content-Type": "application/json"})
    assert response.status_code == report.status, response.text
    report.check(response)
    goes_on(client)


def test_ollama_6703_a_form_instead_of_json(client: httpx.Client) -> None:
    """``curl -d`` sends a form unless it is told otherwise."""
    response = client.post(
        V1, content=json.dumps(said("x")), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]["message"]


def chunks(client: httpx.Client, body: Body) -> list[Body]:
    with client.stream("POST", V1, json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        data = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


def streamed_text(parts: list[Body]) -> str:
    return "".join(part["choices"][0]["delta"].get("content") or "" for part in parts if part["choices"])


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("ABCDEFGHIJKL", ["DEFGHIJ"], "ABC"),  # vllm 3574: its first letters were streamed
        ("alpha beta gamma delta", ["beta gamma"], "alpha "),  # mlx-knife 68: not seen across tokens
        ("ends like a stop: DEFG", ["DEFGHIJ"], "ends like a stop: DEFG"),  # vllm 8468: the rest was lost
        ("a ✿RESU b ✿RET", ["✿RESULT✿", "✿RETURN✿"], "a ✿RESU b ✿RET"),  # vllm 14170
        ("const primes not", ["ot"], "const primes n"),  # ollama 442: inside a token
    ],
)
def test_stop_texts_in_streams(client: httpx.Client, text: str, stop: list[str], expected: str) -> None:
    parts = chunks(client, said(text, stop=stop))
    assert streamed_text(parts) == expected
    assert client.post(V1, json=said(text, stop=stop)).json()["choices"][0]["message"]["content"] == expected


def test_gradio_11729_chunks_without_choices_only_where_usage_was_asked_for(client: httpx.Client) -> None:
    assert all(part["choices"] for part in chunks(client, said("one two")))
    *parts, last = chunks(client, said("one two", stream_options={"include_usage": True}))
    assert all(part["choices"] for part in parts)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0


def test_librechat_11940_and_1794_one_text_streamed_or_not_and_stored(client: httpx.Client) -> None:
    """Twice without a stream; gone after the stop text."""
    body = asks("[[say: one two. END three]]", stop=["END"])
    whole = client.post("/chat", json=body).json()
    lines = read_stream(client, "/chat/stream", body)
    assert text_of(lines).rstrip() == whole["response"].rstrip() == "one two."
    rows = client.get(f"/api/conversations/{whole['conversation_id']}/messages/").json()["results"]
    assert [row["content"].rstrip() for row in rows if row["role"] == "assistant"] == ["one two."]


@pytest.mark.parametrize("key", ["Bearer user_provided", "Bearer sk-no-key-required", "Bearer -"])
def test_librechat_12894_models_for_any_key(client: httpx.Client, key: str) -> None:
    response = client.get("/v1/models", headers={"Authorization": key})
    assert response.status_code == 200
    assert response.json()["data"]


@pytest.mark.parametrize("search", ["%00", "\\u0000", "a%00b", "%", "_", "%25_"])
def test_open_webui_9317_a_search_with_nul(client: httpx.Client, search: str) -> None:
    assert client.get(f"/api/conversations/?search={search}").status_code in (200, 400)
    goes_on(client)


def test_ollama_3839_8099_and_17889_nothing_is_cut_in_silence(client: httpx.Client) -> None:
    """A message that does not fit is refused with both numbers; turns that are left out are reported."""
    long = "w " * 20_000
    for path, body, status in ((V1, asks(long), 400), ("/chat", asks(long), 413), ("/generate", {"prompt": long}, 413)):
        response = client.post(path, json=body)
        assert response.status_code == status, response.text
        assert "8192" in response.json()["error"]["message"]
    turns = [{"role": role, "content": "w " * 2_000} for role in ("user", "assistant") * 3]
    answer = client.post("/chat", json={"messages": [*turns, {"role": "user", "content": "[[say: ok]]"}]})
    assert answer.json()["usage"]["history"]["messages_left_out"] > 0


def test_ollama_6253_a_long_system_text_is_kept(client: httpx.Client) -> None:
    messages = [{"role": "system", "content": "rule " * 1_000}, {"role": "user", "content": "[[say: ok]]"}]
    answer = client.post(V1, json={"messages": messages}).json()
    assert answer["usage"]["prompt_tokens"] > 4_000


def test_llama_cpp_6638_an_answer_without_an_end_stops_at_the_context(client: httpx.Client) -> None:
    answer = client.post(V1, json=asks("[[count: 100000]]", max_tokens=-1, ignore_eos=True)).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] <= 8192


def test_llama_cpp_15812_the_same_request_again(client: httpx.Client) -> None:
    """Nothing was left to compute of a prompt that is cached whole."""
    answers = [client.post(V1, json=said("the same", temperature=0)).json() for _ in range(3)]
    assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"the same"}
    assert answers[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_llama_cpp_7944_and_llama_cpp_python_1369_a_turn_computes_what_is_new(client: httpx.Client) -> None:
    first = client.post("/chat", json=said("a rather long answer " * 20)).json()
    history = {"conversation_id": first["conversation_id"], "message": "[[say: fine]]"}
    usage = client.post("/chat", json=history).json()["usage"]
    assert usage["cached_tokens"] >= first["usage"]["total_tokens"] - 2


def is_idle_within(client: httpx.Client, secs: float) -> None:
    wait_until(lambda: client.get("/health").json()["active"] == 0, timeout_secs=secs, what="no active generation")


def leave(client: httpx.Client, path: str, body: Body, *, after_secs: float) -> None:
    """Send a request and close the connection after the time, whether or not something came."""
    with (
        suppress(httpx.TimeoutException),
        httpx.Client(base_url=client.base_url, timeout=after_secs) as left,
        left.stream("POST", path, json=body) as response,
    ):
        next(response.iter_raw())
        time.sleep(after_secs)


@pytest.mark.parametrize("path", ["/chat/stream", "/chat", V1, "/v1/completions", "/generate"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_left_computes_nothing_more(client: httpx.Client, path: str, stream: bool) -> None:
    """llama.cpp 24496, 13262, 11720; open-webui 1166, 1567, 16251; chat-ui 890; continue 573: it went on to the end."""
    is_idle_within(client, 10)
    body = count(5_000, delay_ms=10, max_tokens=5_000)
    if path in ("/v1/completions", "/generate"):
        body = {"prompt": "[[delay: 10]] [[count: 5000]]", "max_tokens": 5_000}
    leave(client, path, body | {"stream": stream}, after_secs=0.6)
    is_idle_within(client, 5)


def test_llama_cpp_11414_a_cancel_ends_the_task(client: httpx.Client) -> None:
    with client.stream("POST", "/chat/stream", json=count(5_000, delay_ms=10, max_tokens=5_000)) as response:
        lines = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        first = next(lines)
        assert client.post(f"/api/generations/{first['generation_id']}/cancel").status_code in (200, 202)
        began = time.monotonic()
        last = list(lines)[-1]
    assert last["done"]
    assert time.monotonic() - began < 3
    is_idle_within(client, 3)


def test_ik_llama_cpp_1929_a_queued_client_that_leaves_ends_nobody_else(client: httpx.Client) -> None:
    texts: list[str] = []

    def whole() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            texts.append(text_of(read_stream(other, "/chat/stream", count(150, delay_ms=10, max_tokens=2_000))))

    threads = [threading.Thread(target=whole) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    for _ in range(6):
        leave(client, "/chat", count(150, delay_ms=10, max_tokens=2_000), after_secs=0.3)
    for thread in threads:
        thread.join(timeout=60)
    expected = "".join(f"{number} " for number in range(1, 151))
    assert [text.strip() for text in texts] == [expected.strip()] * 6


def test_open_webui_6172_7884_and_29596_a_reloaded_page_has_the_whole_answer(client: httpx.Client) -> None:
    """The part from before the reload was missing, or all of it."""
    seen: list[Body] = []
    with client.stream("POST", "/chat/stream", json=count(60, delay_ms=10, max_tokens=2_000)) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
            if len(seen) > 8:
                break
    again = read_stream(client, f"/chat/stream/{seen[0]['generation_id']}")
    assert text_of(again).split() == [str(number) for number in range(1, 61)]
    rows = client.get(f"/api/conversations/{seen[0]['conversation_id']}/messages/").json()["results"]
    assert rows[-1]["content"].split() == text_of(again).split()


def test_open_webui_954_a_conversation_goes_on_after_a_broken_answer(client: httpx.Client) -> None:
    with client.stream("POST", "/chat/stream", json=count(5_000, delay_ms=10, max_tokens=5_000)) as response:
        lines = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        conversation_id = next(lines)["conversation_id"]
        next(line for line in lines if line["token"])  # before that no answer is active yet
    is_idle_within(client, 5)
    body = {"conversation_id": conversation_id, "message": "[[say: here]]"}
    answer = client.post("/chat", json=body)
    assert (answer.status_code, answer.json().get("response")) == (200, "here"), answer.text


def test_librechat_39_and_open_webui_28413_two_requests_at_once_do_not_mix(client: httpx.Client) -> None:
    """A conversation changed while another answered; the request for a title blocked the model."""
    with client.stream("POST", "/chat/stream", json=count(80, delay_ms=10, max_tokens=2_000)) as response:
        lines = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        first = next(lines)
        began = time.monotonic()
        title = client.post(V1, json=said("A title", max_tokens=20)).json()["choices"][0]["message"]["content"]
        other = client.post("/chat", json=said("other conversation")).json()
        assert time.monotonic() - began < 10
        text = first["token"] + text_of(list(lines))
    assert (title, other["response"]) == ("A title", "other conversation")
    assert text.split() == [str(number) for number in range(1, 81)]
