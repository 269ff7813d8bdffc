"""Thoughts of a reasoning model as items of a response: the same in a stream, read again, and from the row."""

import json
from typing import Any

import pytest

from chat.api.responses.event_writer import NOTHING_SENT, ResponseEventWriter
from chat.api.responses.stored import stored_response
from chat.schemas.answer_types import as_json
from chat.schemas.requests import RESPONSE
from chat.services import turns
from chat.services.turns import Turn
from chat.streaming.background import in_thread
from inference.enums import FinishReason, Status
from inference.models import Generation
from inference.queue.results import CANCELLED, Ending
from inference.runtime.redis_client import log_key, shared_client
from tests.api.responses.calling import EVENT, checked
from tests.api.script import LOCAL, ScriptedWorker, make, read

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_broker")]

CALL = {"background": False, "store": True, "temperature": 0.7, "top_p": 0.95, "truncation": "auto", "model": "m"}


async def begin() -> tuple[Turn, ScriptedWorker]:
    turn, worker = await make()
    await Generation.objects.filter(pk=turn.generation_id).aupdate(details={RESPONSE: CALL})
    return turn, worker


async def row_of(turn: Turn) -> Generation:
    return await in_thread(turns.get_generation, caller=LOCAL, generation_id=turn.generation_id)


async def events_of(turn: Turn, after: int = NOTHING_SENT) -> list[dict[str, Any]]:
    row = await row_of(turn)
    writer = ResponseEventWriter(row, after=after)
    raw = writer.started()
    for line in (await read(turn))[1:]:
        raw += await in_thread(writer.ended, row, line) if line["done"] else writer.token(line)
    events = [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: ")]
    for event in events:
        EVENT.validate_python(event)
    return events


def short(events: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    names = [(event["type"].removeprefix("response."), event.get("output_index")) for event in events]
    return [name for name, before in zip(names, [("", None), *names], strict=False) if name != before]


async def test_a_thought_is_an_item_before_the_message() -> None:
    turn, worker = await begin()
    await in_thread(worker.thinks, "Let me", " see.")
    await in_thread(worker.says, "Four", ".")
    await in_thread(worker.ends)
    events = await events_of(turn)
    assert short(events) == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("content_part.added", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("completed", None),
    ]
    response = checked(events[-1]["response"])
    assert [item["content"][0]["text"] for item in response["output"]] == ["Let me see.", "Four."]
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}


@pytest.mark.parametrize(
    ("pieces", "ending", "texts"),
    [
        ("t1 a1 t2 a2", Ending(Status.COMPLETE, FinishReason.STOP), ["t1", "a1", "t2", "a2"]),
        ("a1 t1", Ending(Status.COMPLETE, FinishReason.STOP), ["a1", "t1"]),
        ("t1 t2", Ending(Status.COMPLETE, FinishReason.LENGTH), ["t1t2"]),
        ("t1 t2", Ending(Status.COMPLETE, FinishReason.STOP), ["t1t2", ""]),
        ("t1 a1", CANCELLED, ["t1", "a1"]),
        ("t1", CANCELLED, ["t1"]),
        ("", CANCELLED, []),
        ("", Ending(Status.FAILED, error_code="model_unavailable", error_message="It died."), []),
    ],
)
async def test_log_row_and_resumed_streams_agree(pieces: str, ending: Ending, texts: list[str]) -> None:
    turn, worker = await begin()
    for piece in pieces.split():
        await in_thread(worker.thinks if piece.startswith("t") else worker.says, piece)
    await in_thread(worker.ends, ending)
    events = await events_of(turn)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response = checked(events[-1]["response"])
    assert [item["content"][0]["text"] for item in response["output"]] == texts
    items = {event["output_index"]: event["item"] for event in events if event["type"].endswith("item.done")}
    assert [items[index] for index in sorted(items)] == response["output"]
    row = await row_of(turn)
    assert as_json(await in_thread(stored_response, row)) == response
    for _source in ("log", "row"):
        for after in range(len(events)):
            assert await events_of(turn, after) == events[after + 1 :]
        await in_thread(shared_client().delete, log_key(turn.generation_id))
