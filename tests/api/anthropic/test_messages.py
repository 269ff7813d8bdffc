"""/v1/messages of a running service."""

from typing import Any

import httpx
import pytest

from chat.tool_calling.call_text import call_text, results_text
from tests.api.anthropic.calling import PATH, Json, created, error_of, joined, say, streamed, text_of
from tests.api.live import make_users
from tests.live_stack import LiveStack, wait_until

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"name": "weather", "description": "Forecast", "input_schema": SCHEMA},
    {"name": "clock", "input_schema": {"type": "object"}, "type": "custom"},
]
ROME = {"city": "Rome", "days": 2}
ROME_TEXT = '{"city": "Rome", "days": 2}'
BOTH = f"Let me see.\n{call_text('weather', ROME_TEXT)}\n{call_text('clock', '{}')}"


def messages_of(client: httpx.Client, message: Json) -> list[str]:
    answer = client.get(f"/api/conversations/{message['conversation_id']}/messages/").json()
    return [row["content"] for row in answer["results"]]


def n_input(usage: dict[str, Any]) -> int:
    """Return the tokens of the prompt; ``input_tokens`` are those that were not cached."""
    return int(usage["input_tokens"] + usage["cache_read_input_tokens"])


def test_a_whole_message(client: httpx.Client) -> None:
    answer = client.post(PATH, json=say("Hello", system="Be brief.", metadata={"user_id": "me"}))
    message = answer.json()
    assert (text_of(message), message["stop_reason"], message["model"]) == ("Hello", "end_turn", "fake-it")
    assert (message["stop_sequence"], message["usage"]["output_tokens"]) == (None, len("Hello"))
    assert answer.headers["request-id"] == answer.headers["X-Request-ID"]
    assert messages_of(client, message) == ["[[say: Hello]]", "Hello"]
    again = created(client, say("Hello", system="Be brief."))["usage"]
    assert n_input(again) == n_input(message["usage"])
    assert again["cache_read_input_tokens"] > 20


@pytest.mark.parametrize("text", ['Hel"lo \u2028 😀', "", "Hello there"])
def test_a_stream(text: str, client: httpx.Client) -> None:
    events = streamed(client, say(text))
    message = joined(events)
    assert (text_of(message), message["stop_reason"]) == (text, "end_turn")
    assert [event["type"] for event in events][-3 if text else -2 :] == [
        *(["content_block_stop"] if text else []),
        "message_delta",
        "message_stop",
    ]
    assert message["usage"]["output_tokens"] == len(text.encode())


def test_the_same_whole_and_streamed(client: httpx.Client) -> None:
    body = say(BOTH, tools=TOOLS, store=False)
    whole, stream = created(client, body), joined(streamed(client, body))
    assert [block | {"id": ""} for block in whole["content"]] == [block | {"id": ""} for block in stream["content"]]
    assert whole["stop_reason"] == stream["stop_reason"] == "tool_use"


def test_max_tokens(client: httpx.Client) -> None:
    message = created(client, say("Hello", max_tokens=2))
    assert (text_of(message), message["stop_reason"]) == ("He", "max_tokens")


@pytest.mark.parametrize(
    ("text", "stops", "stop"),
    [
        ("one two three", [" t", "x"], " t"),
        ("one two three", ["three", "two"], "two"),
        ("one two three", ["two", "wo", "one two"], "one two"),
        ("one twö three", ["ö", "never"], "ö"),
        ("one two", ["never", ""], None),
        ("one two", [], None),
    ],
)
def test_stop_sequences(text: str, stops: list[str], stop: str | None, client: httpx.Client) -> None:
    body = say("", stop_sequences=stops)
    body["messages"][0]["content"] = f"[[say: {text}]]"
    for message in (created(client, body), joined(streamed(client, body))):
        expected = "end_turn" if stop is None else "stop_sequence"
        assert (message["stop_reason"], message["stop_sequence"]) == (expected, stop)
        assert text_of(message) == (text if stop is None else text.partition(stop)[0])


def test_system_blocks_and_parts(client: httpx.Client) -> None:
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "x", "cache_control": {"type": "x"}}]
    content = [{"type": "text", "text": "One"}, {"type": "text", "text": "[[say: Two]]"}]
    message = created(client, say("", system=system, messages=[{"role": "user", "content": content}]))
    assert text_of(message) == "Two"
    conversation = client.get(f"/api/conversations/{message['conversation_id']}/").json()
    assert conversation["system_prompt"] == "Be brief.\n\nx"


def test_documents_and_search_results_are_read(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    content = [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "It is Friday."}},
        {"type": "document", "title": "Plan", "context": "A note", "source": {"type": "content", "content": parts}},
        {"type": "document", "source": {"type": "content", "content": "Three."}, "citations": {"enabled": True}},
        {"type": "search_result", "source": "https://example.org", "title": "Page", "content": parts},
        {"type": "text", "text": "[[say: Well]]"},
    ]
    message = created(client, say("", messages=[{"role": "user", "content": content}]))
    assert text_of(message) == "Well"
    texts = ["It is Friday.", "Plan", "A note", "One.", "Two.", "Three.", "Page", "https://example.org", "One.", "Two."]
    assert messages_of(client, message)[0] == "\n".join([*texts, "[[say: Well]]"])


def test_a_sent_history_continues_its_conversation(client: httpx.Client) -> None:
    first = created(client, say("something new"))
    history = [
        {"role": "user", "content": "[[say: something new]]"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "?", "signature": ""}, *first["content"]]},
        {"role": "user", "content": "[[say: more]]"},
    ]
    second = created(client, say("", messages=history))
    assert (second["conversation_id"], text_of(second)) == (first["conversation_id"], "more")
    third = created(client, say("and more", conversation_id=first["conversation_id"]))
    assert len(messages_of(client, third)) == 6


def test_a_beginning_is_continued(client: httpx.Client) -> None:
    body = say("Hello there")
    body["messages"].append({"role": "assistant", "content": "Hello"})
    message = created(client, body)
    assert (text_of(message), message["conversation_id"]) == (" there", None)


def test_uses_of_tools_and_results(client: httpx.Client) -> None:
    first = created(client, say(BOTH, tools=TOOLS))
    text, weather, clock = first["content"]
    assert (text["text"], weather["name"], weather["input"]) == ("Let me see.", "weather", ROME)
    assert (clock["name"], clock["input"]) == ("clock", {})
    assert weather["id"] != clock["id"]
    results = [
        {"type": "tool_result", "tool_use_id": weather["id"], "content": "Rain"},
        {"type": "tool_result", "tool_use_id": clock["id"], "content": [{"type": "text", "text": "Noon"}]},
        {"type": "text", "text": "[[say: Take an umbrella]]"},
    ]
    history = [
        *say(BOTH)["messages"],
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": results},
    ]
    second = created(client, say("", tools=TOOLS, messages=history))
    assert (text_of(second), second["stop_reason"]) == ("Take an umbrella", "end_turn")
    assert second["conversation_id"] == first["conversation_id"]
    assert messages_of(client, second)[2] == f"{results_text(['Rain', 'Noon'])}\n[[say: Take an umbrella]]"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": "no such city", "is_error": True}, "Error: no such city"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "is_error": True}, "Error: a\nb"),
        ({"is_error": True}, "Error:"),
        ({"content": "fine", "is_error": False}, "fine"),
        ({"content": "fine", "is_error": None}, "fine"),
        ({}, ""),
    ],
)
def test_the_model_learns_that_a_tool_has_failed(result: Json, text: str, client: httpx.Client) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": ROME}
    history = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"} | result]},
    ]
    message = created(client, say("", tools=TOOLS, messages=history))
    assert messages_of(client, message)[2] == results_text([text])


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_a_use_is_required(choice: Json, client: httpx.Client) -> None:
    choice = choice | {"disable_parallel_tool_use": True}
    message = created(client, say("no call", tools=TOOLS[:1], tool_choice=choice))
    assert ([block["type"] for block in message["content"]], message["stop_reason"]) == (["tool_use"], "tool_use")


def test_no_tool_is_shown(client: httpx.Client) -> None:
    message = created(client, say(call_text("weather", ROME_TEXT), tools=TOOLS, tool_choice={"type": "none"}))
    assert text_of(message) == call_text("weather", ROME_TEXT)


def test_a_use_that_is_cut(client: httpx.Client) -> None:
    body = say(call_text("weather", ROME_TEXT), tools=TOOLS, max_tokens=60)
    message = created(client, body)
    [block] = message["content"]
    assert (block["name"], block["input"], message["stop_reason"]) == ("weather", {}, "max_tokens")
    events = streamed(client, body)
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_memories_are_cited(client: httpx.Client) -> None:
    client.post("/memory/add", json={"title": "Plan", "body": "The deadline for the garden is Friday."})
    body = say("It is Friday [1].", use_rag=True, rag_top_k=1)
    body["messages"][0]["content"] += " When is the deadline for the garden?"
    whole, stream = created(client, body), joined(streamed(client, body))
    [citation] = whole["content"][0]["citations"]
    assert (citation["title"], citation["search_result_index"]) == ("Plan", 0)
    assert stream["content"] == whole["content"]


def test_count_tokens(client: httpx.Client) -> None:
    body = say("Hello", system="Be brief.")
    names = ("messages", "model", "system")
    counted = client.post(f"{PATH}/count_tokens", json={name: body[name] for name in names}).json()["input_tokens"]
    assert counted == n_input(created(client, body)["usage"])
    with_tools = client.post(f"{PATH}/count_tokens", json=body | {"tools": TOOLS}).json()["input_tokens"]
    assert with_tools > counted + 100
    too_long = client.post(f"{PATH}/count_tokens", json=say("x" * 30_000)).json()["input_tokens"]
    assert too_long > 8192


def test_errors(client: httpx.Client, fake_stack: LiveStack) -> None:
    long = client.post(PATH, json=say("x" * 20_000))
    status, kind, message = error_of(long)
    assert (status, kind) == (400, "invalid_request_error")
    assert message.startswith("prompt is too long: ")
    assert error_of(client.post(PATH, json=say("x", model="claude-none")))[:2] == (404, "not_found_error")
    assert error_of(client.get(PATH))[:2] == (405, "invalid_request_error")
    assert error_of(client.post(PATH, content=b"{"))[:2] == (415, "invalid_request_error")
    assert error_of(client.post(f"{PATH}/batches", json={}))[:2] == (404, "not_found_error")
    [user] = make_users(fake_stack, "zoe")
    key = user.headers["Authorization"].removeprefix("Bearer ")
    mine = client.post(PATH, json=say("x"), headers={"x-api-key": key, "anthropic-version": "2023-06-01"}).json()
    assert client.get(f"/api/conversations/{mine['conversation_id']}/").status_code == 404
    assert client.get(f"/api/conversations/{mine['conversation_id']}/", headers=user.headers).status_code == 200
    for key, status in (("sk-ant-api03-x", 200), ("a.b.c", 401), ("gemma-x", 401)):
        assert client.post(PATH, json=say("x"), headers={"x-api-key": key}).status_code == status
    assert client.get("/health", headers={"x-api-key": "a.b.c"}).status_code == 200


def test_a_client_that_leaves_stops_its_answer(client: httpx.Client) -> None:
    body = say("")
    body["messages"][0]["content"] = "[[delay: 20]] [[count: 2000]]"
    with client.stream("POST", PATH, json=body | {"stream": True, "max_tokens": 4000}) as stream:
        lines = stream.iter_lines()
        [next(lines) for _ in range(12)]
    is_idle = lambda: client.get("/health").json()["active"] == 0  # noqa: E731
    wait_until(is_idle, timeout_secs=10, what="nothing runs")
