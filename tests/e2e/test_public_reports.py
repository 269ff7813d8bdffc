"""Public bug reports of other servers, replayed with the real model: its tokenizer, its cache and its sampler."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.live_stack import LiveStack, wait_until

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

V1 = "/v1/chat/completions"
# llama.cpp 14655, 15594, 17786, 26965, 27783, 27427: a segmentation fault of the tokenizer.
CRASHING_TEXTS = {
    "14655: blank lines": "Hello\n" + "\n" * 40_000 + "end",
    "15594: letters": "A" * 40_000,
    "17786: letters and a request": "A" * 10_000 + " Say OK",
    "26965: a long result of a tool": "Z" * 131_072,
    "27783: one class of characters": "ß" * 26_000,
    "27427: 50,000 bytes": "lorem ipsum, " * 3_846,
    "21587: no line ends": "no line ends here " * 5_000,
}


@pytest.fixture(scope="module")
def client(real_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real_stack.url, timeout=120) as client:
        yield client


def asks(text: str, **fields: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 12} | fields


def text_of(client: httpx.Client, text: str, path: str = V1, **fields: object) -> str:
    response = client.post(path, json=asks(text, **fields))
    assert response.status_code == 200, response.text
    body = response.json()
    return str(body["choices"][0]["message"]["content"] if path == V1 else body["response"])


@pytest.mark.parametrize("report", CRASHING_TEXTS)
def test_llama_cpp_tokenizer(real_stack: LiveStack, client: httpx.Client, report: str) -> None:
    before = {real_stack.process(title).pid for title in ("gemma-web", "gemma-worker", "gemma-runner cpu")}
    content = CRASHING_TEXTS[report]
    tokens = client.post("/tokenize", json={"content": content})
    assert tokens.status_code == 200
    assert client.post("/detokenize", json=tokens.json()).json() == {"content": content}
    answer = client.post(V1, json=asks(content, max_tokens=1, timeout_s=1))
    assert answer.status_code in (200, 400, 504), answer.text
    after = {real_stack.process(title).pid for title in ("gemma-web", "gemma-worker", "gemma-runner cpu")}
    assert before == after


def test_ollama_5044_a_seed_does_not_make_it_greedy(client: httpx.Client) -> None:
    texts = {text_of(client, "Write a poem.", seed=seed, temperature=1.5) for seed in range(4)}
    assert len(texts) > 1


def test_ollama_17744_the_same_sampling_on_every_interface(client: httpx.Client) -> None:
    """Without a temperature one interface sampled, the other did not."""
    for path in (V1, "/chat"):
        assert len({text_of(client, "Write a poem.", path, seed=seed) for seed in range(6)}) > 1


def test_vllm_22180_greedy_and_sampled_answers_with_forbidden_tokens_in_one_batch(client: httpx.Client) -> None:
    forbidden = client.post("/tokenize", json={"content": " Paris Paris"}).json()["tokens"]
    bias = {str(token): False for token in forbidden}
    alone = text_of(client, "The capital of France is", temperature=0, logit_bias=bias)
    assert "Paris" not in alone
    options: Iterator[dict[str, float]] = itertools.cycle(
        [{"temperature": 0}, {"temperature": 1.2, "top_p": 0.9}, {"temperature": 0.8, "min_p": 0.1}]
    )
    body: dict[str, Any] = {"prompt": ["The capital of France is"] * 6, "max_tokens": 12, "logit_bias": bias}
    for _ in range(3):
        answers = client.post("/v1/completions", json=body | next(options)).json()["choices"]
        assert len(answers) == 6
        assert all("Paris" not in answer["text"] for answer in answers)


def test_llama_cpp_python_1020_and_1195_and_1369_an_answer_and_its_cache(client: httpx.Client) -> None:
    """The answer was empty; the next turn computed it again."""
    first = client.post("/chat", json=asks("What is the capital of Canada?", ignore_eos=True)).json()
    assert first["response"].strip()
    more = {"conversation_id": first["conversation_id"], "message": "And of Mexico?", "max_tokens": 4}
    usage = client.post("/chat", json=more).json()["usage"]
    assert usage["cached_tokens"] >= first["usage"]["total_tokens"] - 2


def test_llama_cpp_15232_an_abort_during_the_prompt_ends_it(client: httpx.Client) -> None:
    body = asks(f"{time.monotonic()} " + "a long prompt " * 3_000, stream=True)
    with suppress(httpx.TimeoutException), httpx.Client(base_url=client.base_url, timeout=1.0) as left:
        left.post(V1, content=json.dumps(body), headers={"Content-Type": "application/json"})
    # The grace is 5 s.
    wait_until(lambda: client.get("/health").json()["active"] == 0, timeout_secs=20, what="the prompt is given up")
    assert text_of(client, "Say hello.")


def test_ollama_3552_stop_texts_seed_and_temperature_of_a_completion(client: httpx.Client) -> None:
    body = {"prompt": "<PRE> # Language: Shell\n#!/bin/bash\n", "max_tokens": 160, "seed": 999, "temperature": 0.0}
    for _ in range(2):
        answer = client.post("/v1/completions", json=body | {"stop": ["<END>", "<EOD>", "<EOT>"]}).json()
        assert answer["choices"][0]["finish_reason"] in ("stop", "length")
        assert 0 < answer["usage"]["completion_tokens"] <= 160
