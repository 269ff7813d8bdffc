"""Calls of /v1/responses, whose answers are parsed by the types of the ``openai`` package."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

PATH = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
Json = dict[str, Any]


def say(text: str, /, **more: object) -> Json:
    """A body that the scripted model answers with ``text``."""
    return {"input": f"[[say: {text}]]"} | more


def count(n: int, /, *, delay_ms: int = 0, **more: object) -> Json:
    return {"input": f"[[delay: {delay_ms}]] [[count: {n}]]"} | more


def created(client: httpx.Client, body: Json, **options: Any) -> Json:  # noqa: ANN401
    answer = client.post(PATH, json=body, **options)
    assert answer.status_code == 200, answer.text
    return checked(answer.json())


def checked(body: Json) -> Json:
    Response.model_validate(body)
    return body


def retrieved(client: httpx.Client, response_id: str) -> Json:
    answer = client.get(f"{PATH}/{response_id}")
    assert answer.status_code == 200, answer.text
    return checked(answer.json())


def text_of(response: Json) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def events_in(response: httpx.Response) -> Iterator[Json]:
    """The events of a stream, each parsed and with the name of its frame."""
    assert response.status_code == 200, response.read()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            event: Json = json.loads(line.removeprefix("data: "))
            assert event["type"] == name
            EVENT.validate_python(event)
            yield event


def streamed(client: httpx.Client, body: Json) -> list[Json]:
    with client.stream("POST", PATH, json=body | {"stream": True}) as response:
        return list(events_in(response))


def resumed(client: httpx.Client, response_id: str, after: int | None = None) -> list[Json]:
    parameters = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    with client.stream("GET", f"{PATH}/{response_id}", params=parameters) as response:
        return list(events_in(response))


def types_of(events: list[Json]) -> list[str]:
    """The types in order, of several in a row the first."""
    types = [event["type"].removeprefix("response.") for event in events]
    return [kind for kind, before in zip(types, ["", *types], strict=False) if kind != before]


def deltas_of(events: list[Json]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    body = answer.json()["error"]
    return answer.status_code, body["code"], body["param"]
