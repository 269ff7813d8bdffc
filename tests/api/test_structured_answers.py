"""Answers of a running service that obey a form, over every interface."""

import json
from typing import Any

import httpx
import jsonschema
import pytest

from tests.api.live import say
from tests.live_stack import LiveStack

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}
OTHER = "Rome, for a week"


def check(text: str) -> None:
    jsonschema.validate(json.loads(text), SCHEMA)


@pytest.fixture(scope="module")
def url(fake_stack: LiveStack) -> str:
    return fake_stack.url


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(url + path, json=body, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(url: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with httpx.stream("POST", url + path, json=body, timeout=60) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_chat(url: str) -> None:
    answer = post(url, "/chat", say(OTHER, response_format=FORMAT))
    check(answer["response"])
    assert answer["finish_reason"] == "stop"


def test_chat_stream(url: str) -> None:
    lines = events(url, "/chat/stream", say(OTHER, response_format=FORMAT))
    check("".join(line["token"] for line in lines))
    assert lines[-1]["finish_reason"] == "stop"


def test_generate(url: str) -> None:
    check(post(url, "/generate", {"prompt": OTHER, "json_schema": SCHEMA})["text"])
    assert post(url, "/generate", {"prompt": OTHER, "grammar": 'root ::= "ye" "s"'})["text"] == "yes"


def test_chat_completions(url: str) -> None:
    answer = post(url, "/v1/chat/completions", say(OTHER, response_format=FORMAT, n=3, temperature=1.0))
    for choice in answer["choices"]:
        check(choice["message"]["content"])
        assert choice["finish_reason"] == "stop"


def test_a_streamed_completion(url: str) -> None:
    chunks = events(url, "/v1/chat/completions", say(OTHER, response_format=FORMAT, stream=True))
    check("".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]))


def test_completions(url: str) -> None:
    body = {"prompt": [OTHER, "Oslo"], "response_format": FORMAT, "max_tokens": 100}
    for choice in post(url, "/v1/completions", body)["choices"]:
        check(choice["text"])


def test_the_model_writes_what_the_form_allows(url: str) -> None:
    text = '{"city": "Oslo", "days": 4}'
    assert post(url, "/chat", say(text, response_format=FORMAT))["response"] == text


def test_a_cut_answer_says_so(url: str) -> None:
    answer = post(url, "/chat", say(OTHER, response_format=FORMAT, max_tokens=5))
    assert answer["finish_reason"] == "length"
    assert answer["response"].startswith("{")


def test_a_form_and_a_bias_that_exclude_each_other(url: str) -> None:
    body = say(OTHER, response_format={"type": "regex", "regex": "a"}, logit_bias={str(5 + ord("a")): False})
    response = httpx.post(url + "/v1/chat/completions", json=body, timeout=60)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "grammar_failed")


def test_labels_within_a_structured_answer_stay(url: str) -> None:
    text = '{"a":[7]}'
    schema = {"const": {"a": [7]}}
    answer = post(url, "/chat", say(text, json_schema=schema, context=["The sky is blue."]))
    assert json.loads(answer["response"]) == {"a": [7]}
