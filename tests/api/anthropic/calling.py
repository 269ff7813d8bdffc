"""Calls of /v1/messages, whose answers are parsed by the types of the ``anthropic`` package."""

import json
from typing import Any

import httpx
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

PATH = "/v1/messages"
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
Json = dict[str, Any]


def say(text: str, /, **more: object) -> Json:
    """A body that the scripted model answers with ``text``."""
    content = f"[[say: {text}]]"
    return {"model": "", "max_tokens": 200, "messages": [{"role": "user", "content": content}]} | more


def created(client: httpx.Client, body: Json) -> Json:
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    message: Json = answer.json()
    Message.model_validate(message)
    return message


def streamed(client: httpx.Client, body: Json) -> list[Json]:
    """The events of a stream without pings."""
    events: list[Json] = []
    with client.stream("POST", PATH, json=body | {"stream": True}) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: "):
                event: Json = json.loads(line.removeprefix("data: "))
                if event["type"] != "ping":
                    EVENT.validate_python(event)
                    events.append(event)
    return events


def joined(events: list[Json]) -> Json:
    """The message that the events make, as clients join them."""
    message: Json = events[0]["message"] | {"content": []}
    for event in events[1:]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            _grow(message["content"][event["index"]], event["delta"])
        elif event["type"] == "content_block_stop" and "json" in message["content"][event["index"]]:
            block = message["content"][event["index"]]
            block["input"] = json.loads(block.pop("json"))
        elif event["type"] == "message_delta":
            message |= event["delta"] | {"usage": event["usage"]}
    assert events[-1]["type"] == "message_stop"
    return message


def _grow(block: Json, delta: Json) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "input_json_delta":
            block["json"] = block.get("json", "") + delta["partial_json"]
        case "citations_delta":
            block["citations"] = [*(block["citations"] or ()), delta["citation"]]


def text_of(message: Json) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert (body["type"], body["request_id"]) == ("error", answer.headers["request-id"])
    return answer.status_code, body["error"]["type"], body["error"]["message"]
