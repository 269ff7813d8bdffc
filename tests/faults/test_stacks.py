"""Whole services: two on one machine, and one that is started on the database of an older release."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
import redis

from inference.engine.backends.fake import FakeVocabulary
from inference.token_ids import pack
from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.conftest import MakeStack, Seen
from tests.faults.reading import Client, numbers
from tests.live_stack import wait_until

ENDED = ("complete", "interrupted", "failed")


@pytest.mark.fault(
    "45",
    "two services started at the same time on one machine",
    "each answers its own, no key is shared",
    repeated=True,
    quick=False,
)
def test_two_services(make_stack: MakeStack, seen: Seen) -> None:
    stacks = [make_stack(), make_stack()]
    for stack in stacks:
        stack.start(wait=False)
    for stack in stacks:
        stack.wait_until_healthy()
    readings = [Client(stack.url).read(count(10 + number)) for number, stack in enumerate(stacks)]
    for number, each in enumerate(readings):
        each.assert_whole(numbers(10 + number))
    keys = [logs(stack) for stack in stacks]
    assert keys[0].isdisjoint(keys[1])
    assert f"gemma:log:{readings[0].generation_id}" in keys[0]
    assert httpx.get(f"{stacks[1].url}/chat/stream/{readings[0].generation_id}").status_code == 404


def logs(stack: FaultStack) -> set[str]:
    with closing(redis.Redis.from_url(f"unix://{stack.data_dir}/run/valkey.sock", decode_responses=True)) as client:
        return set(client.scan_iter("gemma:log:*"))


@pytest.mark.fault(
    "49",
    "started on the first release's tables, with rows in every status, their workers gone",
    "every row ends; those that had ended are as they were",
    quick=False,
)
def test_an_older_database(make_stack: MakeStack, seen: Seen) -> None:
    stack = make_stack()
    for app in ("chat", "inference"):
        assert stack.run("migrate", "--skip-checks", app, "0001").returncode == 0
    ids = {status: old_row(stack, status) for status in ("preparing", "queued", "running", *ENDED)}
    stack.start()
    wait_until(lambda: all(row.status in ENDED for row in stack.rows()), timeout_secs=40, what="every row has ended")
    found = {status: stack.row(generation_id) for status, generation_id in ids.items()}
    assert {status: row.status for status, row in found.items()} == {
        "preparing": "failed",  # its task's name is of a release that had another
        "queued": "complete",
        "running": "complete",
        "complete": "complete",
        "interrupted": "interrupted",
        "failed": "failed",
    }
    assert [found[status].text for status in ENDED] == ["as it was"] * 3
    assert (found["queued"].text, found["running"].text) == ("hello", "hello")
    Client(stack.url).read(say("new")).assert_whole("new")


def old_row(stack: FaultStack, status: str) -> str:
    """A generation as the first release stored it."""
    now = datetime.now(UTC).replace(tzinfo=None)
    known = {
        "id": uuid4().hex,
        "owner": "local",
        "status": status,
        "params": json.dumps({"sampling": {"seed": 7, "temperature": 0.0}, "max_tokens": 50}),
        "prompt": b"" if status == "preparing" else pack(FakeVocabulary().encode("[[say: hello]]", special=False)),
        "text": "as it was" if status in ENDED else "",
        "worker": "gone:1:aa" if status == "running" else "",
        "claim_epoch": 0 if status in ("preparing", "queued") else 1,
        "attempt": 0 if status in ("preparing", "queued") else 1,
        "created_at": now - timedelta(minutes=1),
        "queued_at": now - timedelta(minutes=1),
    }
    with closing(sqlite3.connect(stack.database)) as connection:
        columns = connection.execute("PRAGMA table_info(inference_generation)").fetchall()
        # Columns without a default in the database get Django's default.
        blanks = {"BLOB": b"", "int": 0, "bool": False}
        row = {
            name: known.get(name, None if not required else next((v for k, v in blanks.items() if k in kind), ""))
            for _, name, kind, required, *_ in columns
        }
        row |= {"priority": 1, "annex": "{}", "timings": "{}", "devices": "[]"}
        marks = ", ".join("?" * len(row))
        connection.execute(
            f"INSERT INTO inference_generation ({', '.join(row)}) VALUES ({marks})",  # noqa: S608  names of the table
            [value.isoformat(" ") if isinstance(value, datetime) else value for value in row.values()],
        )
        connection.commit()
    return str(known["id"])
