"""A model that follows instructions: tools that are called and schemas that are filled. INSTRUCT_MODEL_FILE names the
file of one whose template takes tools (Qwen2.5-Coder-0.5B-Instruct was tried); without it nothing runs."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.live_stack import running_stack, wait_until

MODEL_FILE = os.environ.get("INSTRUCT_MODEL_FILE", "")
pytestmark = [
    pytest.mark.skipif(not MODEL_FILE, reason="INSTRUCT_MODEL_FILE is not set"),
    pytest.mark.timeout(600),
]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Get the current {what} of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name, what in (("get_weather", "weather"), ("get_time", "time"))
]
SYSTEM: Any = {"role": "system", "content": "You are a helpful assistant."}


class Person(BaseModel):
    name: str
    age: int
    languages: list[str]


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    with (
        running_stack("llama", GEMMA_MODEL_PATH=MODEL_FILE, GEMMA_CONTEXT_SIZE="4096") as stack,
        OpenAI(base_url=f"{stack.url}/v1", api_key="none", timeout=600) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def create(client: OpenAI) -> Callable[..., Any]:
    model = client.models.list().data[0].id

    def create(text: str, **options: Any) -> Any:  # noqa: ANN401  fields of the package's methods
        messages: Any = [SYSTEM, {"role": "user", "content": text}]
        return client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=200, **options)

    return create


def test_the_tool_that_is_needed_is_called(create: Callable[..., Any]) -> None:
    for text, name in (("What is the weather in Paris?", "get_weather"), ("What time is it in Tokyo?", "get_time")):
        answer = create(text, tools=TOOLS)
        assert answer.choices[0].finish_reason == "tool_calls"
        function = answer.choices[0].message.tool_calls[0].function
        assert function.name == name
        assert json.loads(function.arguments)["city"] in text


def test_no_tool_is_called_where_none_may_be(create: Callable[..., Any]) -> None:
    answer = create("Say hello in French.", tools=TOOLS, tool_choice="none")
    assert answer.choices[0].message.tool_calls is None
    assert "onjour" in answer.choices[0].message.content


def test_a_schema_is_filled_with_what_the_text_says(client: OpenAI) -> None:
    text: Any = "Anna is 34 years old and speaks German, Czech and some Danish."
    answer = client.chat.completions.parse(
        model=client.models.list().data[0].id,
        messages=[SYSTEM, {"role": "user", "content": f"Extract as JSON: {text}"}],
        response_format=Person,
        temperature=0,
        max_tokens=200,
    )
    assert answer.choices[0].message.parsed == Person(name="Anna", age=34, languages=["German", "Czech", "Danish"])


def test_a_title_for_a_conversation(client: OpenAI) -> None:
    """As the chat page asks for it: within a minute the first words give way to a title that was checked."""
    with httpx.Client(base_url=str(client.base_url).removesuffix("/v1/"), timeout=600) as http:
        question = "How many planets does the solar system have, and which one is the largest of them?"
        body = {"message": question, "auto_title": True, "max_tokens": 60}
        conversation_id = http.post("/chat", json=body).json()["conversation_id"]

        def conversation() -> Any:  # noqa: ANN401  JSON
            return http.get(f"/api/conversations/{conversation_id}/").json()

        wait_until(lambda: conversation()["title_source"] != "awaited", timeout_secs=60, what="a title was made")
        assert conversation()["title_source"] == "model"
        assert "planet" in conversation()["title"].lower() or "solar" in conversation()["title"].lower()
