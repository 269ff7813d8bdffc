"""The calls that Open WebUI 0.12 makes, with the fields that its source sends."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live_stack import LiveStack

SYSTEM = {"role": "system", "content": "Be kind."}
HISTORY = [
    {"role": "user", "content": "[[say: One]]"},
    {"role": "assistant", "content": "One"},
    {"role": "user", "content": "[[say: Two and three]]"},
]


@pytest.fixture
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer none"}
    with httpx.Client(base_url=f"{fake_stack.url}/v1", headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def model(client: httpx.Client) -> str:
    listed = client.get("/models").json()
    assert listed["object"] == "list"
    name: str = listed["data"][0]["id"]
    return name


def streamed(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("POST", "/chat/completions", json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_a_chat(client: httpx.Client, model: str) -> None:
    options = {"stream_options": {"include_usage": True}, "temperature": 0.8, "max_tokens": 50, "stop": ["###"]}
    chunks = streamed(client, {"model": model, "messages": [SYSTEM, *HISTORY]} | options)
    assert text_of(chunks) == "Two and three"
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_an_answer_that_is_continued(client: httpx.Client, model: str) -> None:
    begun = [*HISTORY[:1], {"role": "assistant", "content": "O"}]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    assert text_of(streamed(client, {"model": model, "messages": begun} | options)) == "ne"


def test_a_title_and_tags(client: httpx.Client, model: str) -> None:
    """Its own tasks ask for a whole answer."""
    body = {"model": model, "messages": HISTORY[:1], "stream": False, "max_tokens": 1000}
    answer = client.post("/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "One"


def test_tools_by_the_model(client: httpx.Client, model: str) -> None:
    function = {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}
    body = {"model": model, "messages": HISTORY[:1], "tools": [{"type": "function", "function": function}]}
    chunks = streamed(client, body | {"tool_choice": "required"})
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert calls[0]["function"]["name"] == "clock"


def test_embeddings(client: httpx.Client) -> None:
    answer = client.post("/embeddings", json={"input": ["a", "b"], "model": "all-MiniLM-L6-v2"}).json()
    assert [item["index"] for item in answer["data"]] == [0, 1]
