"""References to stored items in the input of /v1/responses."""

from typing import Any

import httpx
import pytest

from chat.api.responses.references import MAX_REFERENCES
from tests.api.responses.calling import PATH, Json, count, created, error_of, say, text_of
from tests.api.responses.test_calls import BOTH, TOOLS, calls_of
from tests.api.responses.test_stored import items_of, messages_of


def reference(item: Json) -> Json:
    return {"type": "item_reference", "id": item["id"]}


def user(text: str) -> Json:
    return {"role": "user", "content": f"[[say: {text}]]"}


def test_a_dialogue_of_references_continues_its_conversation(client: httpx.Client) -> None:
    first = created(client, say("referred to"))
    items = [user("referred to"), reference(first["output"][0]), user("more")]
    second = created(client, {"input": items})
    assert (text_of(second), second["conversation"]) == ("more", first["conversation"])
    # The items of the user have ids in the list of the input.
    listed = items_of(client, second, "?order=asc")["data"]
    third = created(client, {"input": [*map(reference, listed), reference(second["output"][0]), user("most")]})
    assert messages_of(client, third) == [
        *["[[say: referred to]]", "referred to", "[[say: more]]", "more", "[[say: most]]", "most"]
    ]


def test_calls_and_their_outputs(client: httpx.Client) -> None:
    first = created(client, say(BOTH, tools=TOOLS, store=True))
    outputs = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "[[say: Rain]]"}
        for item in first["output"]
        if item["type"] == "function_call"
    ]
    assert len(calls_of(first)) == len(outputs) == 2
    items = [say(BOTH)["input"], *map(reference, first["output"]), *outputs]
    items[0] = {"role": "user", "content": items[0]}
    second = created(client, {"input": items, "tools": TOOLS})
    assert text_of(second) == "Rain"
    assert second["conversation"] == first["conversation"]
    # Both outputs are one message, which lists them one by one.
    listed = items_of(client, second, "?order=asc")["data"]
    assert [item["output"] for item in listed if item["type"] == "function_call_output"] == ["[[say: Rain]]"] * 2
    third = created(client, {"input": [*map(reference, listed), reference(second["output"][0]), user("on")]})
    assert (text_of(third), third["conversation"]) == ("on", first["conversation"])


@pytest.mark.parametrize(
    "name", ["msg_1", "msg_" + "0" * 32, "resp_" + "0" * 32, "msg_" + "0" * 40, "", 5, None, ["x"]]
)
def test_an_unknown_item(name: object, client: httpx.Client) -> None:
    items: list[Any] = [user("x"), {"type": "item_reference", "id": name}, user("x")]
    assert error_of(client.post(PATH, json={"input": items})) == (404, "not_found", "input[1].id")


def test_what_is_not_kept_cannot_be_referred_to(client: httpx.Client) -> None:
    forgotten = created(client, say("x", store=False))
    deleted = created(client, say("x"))
    other = created(client, say("y"))
    assert client.delete(f"{PATH}/{deleted['id']}").status_code == 200
    running = created(client, count(500, delay_ms=20, background=True))
    names = [forgotten["output"][0]["id"], deleted["output"][0]["id"], running["id"].replace("resp_", "msg_")]
    names.append(other["output"][0]["id"] + "1")  # an item that the answer does not have
    for name in names:
        items = [{"type": "item_reference", "id": name}, user("x")]
        assert error_of(client.post(PATH, json={"input": items})) == (404, "not_found", "input[0].id")
    assert client.post(f"{PATH}/{running['id']}/cancel").status_code == 200


def test_too_many_references(client: httpx.Client) -> None:
    items = [{"type": "item_reference", "id": "msg_" + "0" * 32}] * (MAX_REFERENCES + 1)
    assert error_of(client.post(PATH, json={"input": items})) == (400, "invalid_request", "input")
