"""Thoughts of a reasoning model as clients receive them: apart from the answer, the same from every reader."""

import pytest
from channels.db import database_sync_to_async

from chat.schemas import answers
from chat.streaming.background import in_thread
from inference.models import Generation
from inference.runtime.redis_client import log_key, shared_client
from tests.api.script import make, read, text_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_broker")]


def thought_of(lines: list[dict[str, object]]) -> str:
    return "".join(str(line.get("thought", "")) for line in lines)


async def test_a_thought_has_lines_of_its_own_and_no_part_in_the_answer() -> None:
    turn, worker = await make()
    await in_thread(worker.thinks, "Let me", " see.")
    await in_thread(worker.says, "Four", ".")
    await in_thread(worker.ends)
    lines = await read(turn)
    assert [(line["id"], line["token"], line.get("thought")) for line in lines[1:-1]] == [
        (1, "", "Let me"),
        (2, "", " see."),
        (3, "Four", None),
        (4, ".", None),
    ]
    assert (lines[-1]["usage"]["thought_tokens"], lines[-1]["usage"]["completion_tokens"]) == (2, 4)
    row = await database_sync_to_async(Generation.objects.get)(pk=turn.generation_id)
    assert (row.thought, row.text) == ("Let me see.", "Four.")
    whole = await database_sync_to_async(answers.answer)(row)
    assert (whole["response"], whole["thought"]) == ("Four.", "Let me see.")


async def test_a_stream_resumed_at_each_id_has_the_same_rest_from_log_and_row() -> None:
    turn, worker = await make()
    await in_thread(worker.thinks, "a", "b")
    await in_thread(worker.says, "", "c")
    await in_thread(worker.ends)
    whole = await read(turn)
    for source in ("log", "row"):
        for after in range(5):
            rest = await read(turn, after)
            assert rest[1:] == whole[after + 1 :], (source, after)
        await in_thread(shared_client().delete, log_key(turn.generation_id))


async def test_an_answer_that_ended_within_its_thought_is_empty() -> None:
    turn, worker = await make()
    await in_thread(worker.thinks, "Hm")
    await in_thread(worker.ends)
    lines = await read(turn)
    assert (text_of(lines), thought_of(lines)) == ("", "Hm")


async def test_an_answer_without_a_thought_names_none() -> None:
    turn, worker = await make()
    await in_thread(worker.says, "Hi")
    await in_thread(worker.ends)
    lines = await read(turn)
    assert not any("thought" in line for line in lines)
    assert "thought_tokens" not in lines[-1]["usage"]
