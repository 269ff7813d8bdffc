"""A database that is locked, full or away: no token is lost, nothing is stored by half."""

import time

import httpx
import pytest

from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.conftest import MakeStack, Seen
from tests.faults.reading import Client, numbers


@pytest.mark.fault(
    "12",
    "the database is locked for 10 s, longer than a claim lives, beyond the end of 4 answers",
    "tokens come on, each text is stored once, no claim is taken over",
    repeated=True,
)
def test_locked(stack: FaultStack, seen: Seen) -> None:
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 4, n_tokens=15)
    with stack.locked_database(10):
        pass
    told = [answer.result() for answer in answers]
    for each in told:
        each.assert_whole(numbers(60))
        row = stack.row(each.generation_id)
        assert (row.status, row.text) == ("complete", numbers(60))
        assert (row.attempt, row.epoch) == (1, 1)
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in told), 1)
    assert seen["pause_secs"] < 5, "the log does not wait for the database"
    Client(stack.url).read(say("next", store=False)).assert_whole("next")


@pytest.mark.fault(
    "46",
    "no file may grow any more while two answers run and others are asked for",
    "503, no half-written message; with room again the answers are stored whole",
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
        told = answer.result()
        told.assert_whole(numbers(60))
        assert stack.row(told.generation_id).text == numbers(60)
    assert stack.query("PRAGMA integrity_check") == [("ok",)]
    messages = stack.query("SELECT count(*) FROM chat_message")[0][0]
    assert messages == 2 * 2, "question and answer of each accepted turn, nothing of the refused ones"
    Client(stack.url).read(say("yes")).assert_whole("yes")
