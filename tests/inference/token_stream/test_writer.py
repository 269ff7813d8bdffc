"""The thread that writes token logs: batching, a Redis that is away or lost its memory, claims that are lost."""

import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from inference.enums import StreamState
from inference.runtime.redis_client import log_key
from inference.token_stream import redis_log
from inference.token_stream import writer as log_writer
from inference.token_stream.entries import EndEntry, StatusEntry, TokenEntry
from inference.token_stream.writer import LogWriter
from tests.inference.making import tokens

PATIENCE_SECS = 10.0

Claim = tuple[UUID, int]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


class Outage:
    """Makes appends fail as if Redis were away, while ``is_on``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = False
        self.n_failed = 0
        self._append = redis_log._append
        monkeypatch.setattr(redis_log, "_append", self._maybe)

    def _maybe(self, client: "redis.Redis[bytes]", appends: list[redis_log.Append]) -> object:
        if self.is_on:
            self.n_failed += 1
            raise RedisConnectionError("away")
        return self._append(client, appends)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    monkeypatch.setattr(log_writer, "RETRY_SECS", 0.01)
    return Outage(monkeypatch)


@pytest.fixture
def lost() -> list[Claim]:
    return []


@pytest.fixture
def writer(store: "redis.Redis[bytes]", lost: list[Claim]) -> Iterator[LogWriter]:
    writer = LogWriter(store, lambda *claim: lost.append(claim))
    writer.begin()
    yield writer
    writer.end(5.0)


def put(writer: LogWriter, generation_id: UUID, *entries: TokenEntry | EndEntry | StatusEntry, epoch: int = 1) -> None:
    writer.put([(generation_id, epoch, entry) for entry in entries])


def text(store: "redis.Redis[bytes]", generation_id: UUID) -> str:
    return "".join(token.text for token in redis_log.tail(store, generation_id))


def test_entries_are_written_in_order(writer: LogWriter, store: "redis.Redis[bytes]") -> None:
    one, two = uuid4(), uuid4()
    writer.open(one, 1, [])
    writer.open(two, 1, [])
    for index, char in enumerate("hello", start=1):
        writer.put([(one, 1, tokens(char, first=index)[0]), (two, 1, tokens(char.upper(), first=index)[0])])
    assert writer.flush(one, 1, PATIENCE_SECS)
    assert writer.flush(two, 1, PATIENCE_SECS)
    assert (text(store, one), text(store, two)) == ("hello", "HELLO")


def test_entries_since_the_last_write_are_one_round_trip(
    writer: LogWriter, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    busy, go_on = threading.Event(), threading.Event()
    append = redis_log.append

    def slow(client: "redis.Redis[bytes]", appends: list[redis_log.Append]) -> object:
        calls.append(sum(len(one.entries) for one in appends))
        busy.set()
        go_on.wait(PATIENCE_SECS)
        return append(client, appends)

    monkeypatch.setattr(redis_log, "append", slow)
    ids = [uuid4() for _ in range(3)]
    for each in ids:
        writer.open(each, 1, [])
    put(writer, ids[0], *tokens("a"))
    assert busy.wait(PATIENCE_SECS)
    put(writer, ids[0], *tokens("bc", first=2))
    put(writer, ids[1], *tokens("x"))
    put(writer, ids[2], *tokens("y"))
    go_on.set()
    assert all(writer.flush(each, 1, PATIENCE_SECS) for each in ids)
    assert calls == [1, 4]


def test_entries_wait_for_a_redis_that_is_away(writer: LogWriter, store: "redis.Redis[bytes]", outage: Outage) -> None:
    generation = uuid4()
    writer.open(generation, 1, [])
    outage.is_on = True
    put(writer, generation, *tokens("abc"))
    assert eventually(lambda: outage.n_failed >= 2)
    put(writer, generation, *tokens("d", first=4), EndEntry(index=4, status="complete"))
    assert not writer.flush(generation, 1, 0.05)
    outage.is_on = False
    assert writer.flush(generation, 1, PATIENCE_SECS)
    assert text(store, generation) == "abcd"


def test_a_log_that_redis_lost_is_written_again(writer: LogWriter, store: "redis.Redis[bytes]") -> None:
    generation = uuid4()
    writer.open(generation, 2, tokens("ab"))  # left by an earlier claim
    redis_log.append(store, [redis_log.Append(generation, 1, tokens("ab"))])
    put(writer, generation, *tokens("c", first=3), epoch=2)
    assert writer.flush(generation, 2, PATIENCE_SECS)
    store.flushall()
    put(writer, generation, StatusEntry(index=3, state=StreamState.LOADING), *tokens("d", first=4), epoch=2)
    put(writer, generation, EndEntry(index=4, status="complete"), epoch=2)
    assert writer.flush(generation, 2, PATIENCE_SECS)
    assert text(store, generation) == "abcd"
    _, fields = store.xrevrange(log_key(generation), count=1)[0]
    assert isinstance(redis_log.decode(fields[b"e"]), EndEntry)


def test_a_lost_log_is_not_written_by_a_late_owner(store: "redis.Redis[bytes]", lost: list[Claim]) -> None:
    """With the log went the epoch that would have refused it; its row knows better."""
    generation = uuid4()
    writer = LogWriter(store, lambda *claim: lost.append(claim), holds=lambda _, epoch: epoch == 2)
    for epoch in (1, 2):
        writer.open(generation, epoch, tokens("ab"))
    put(writer, generation, *tokens("x", first=3), epoch=1)
    writer.write_once()
    assert lost == [(generation, 1)]
    assert text(store, generation) == ""
    put(writer, generation, *tokens("c", first=3), epoch=2)
    writer.write_once()
    writer.write_once()
    assert text(store, generation) == "abc"


def test_a_status_alone_after_a_loss_brings_the_tokens_back(writer: LogWriter, store: "redis.Redis[bytes]") -> None:
    generation = uuid4()
    writer.open(generation, 1, [])
    put(writer, generation, *tokens("ab"))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    store.flushall()
    put(writer, generation, StatusEntry(index=2, state=StreamState.LOADING))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    assert text(store, generation) == "ab"


def test_a_lost_claim_is_reported_and_writes_no_more(
    writer: LogWriter, store: "redis.Redis[bytes]", lost: list[Claim]
) -> None:
    generation = uuid4()
    writer.open(generation, 1, [])
    put(writer, generation, *tokens("ab"))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    redis_log.fence(store, generation, 2)
    put(writer, generation, *tokens("c", first=3))
    assert eventually(lambda: lost == [(generation, 1)])
    put(writer, generation, *tokens("d", first=4))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    assert text(store, generation) == "ab"
    assert lost == [(generation, 1)]


def test_a_later_claim_of_the_same_generation_has_its_own_channel(
    writer: LogWriter, store: "redis.Redis[bytes]", lost: list[Claim]
) -> None:
    """The former channel may still be open: its claim has not noticed the loss yet."""
    generation = uuid4()
    writer.open(generation, 1, [])
    put(writer, generation, *tokens("ab"))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    writer.open(generation, 3, redis_log.fence(store, generation, 3))
    put(writer, generation, *tokens("c", first=3), EndEntry(index=3, status="complete"), epoch=3)
    put(writer, generation, *tokens("x", first=3))
    assert writer.flush(generation, 3, PATIENCE_SECS)
    assert text(store, generation) == "abc"
    assert eventually(lambda: lost == [(generation, 1)])
    writer.forget(generation, 1)


def test_an_unforeseen_error_does_not_end_the_thread(
    writer: LogWriter, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its thread every later answer would stay silent until its end."""
    monkeypatch.setattr(log_writer, "RETRY_SECS", 0.01)
    append, faults = redis_log._append, iter([RuntimeError("a bug"), NoScriptError("twice"), NoScriptError()])

    def failing(*arguments: object) -> object:
        if fault := next(faults, None):
            raise fault
        return append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(redis_log, "_append", failing)
    generation = uuid4()
    writer.open(generation, 1, [])
    put(writer, generation, *tokens("ab"))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    assert text(store, generation) == "ab"


def test_nothing_is_written_behind_an_end(writer: LogWriter, store: "redis.Redis[bytes]") -> None:
    generation = uuid4()
    writer.open(generation, 1, [])
    put(writer, generation, *tokens("a"), EndEntry(index=1, status="complete"), EndEntry(index=1, status="failed"))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    put(writer, generation, *tokens("b", first=2))
    assert writer.flush(generation, 1, PATIENCE_SECS)
    assert store.xlen(log_key(generation)) == 2


def test_an_end_that_cannot_be_written_is_given_up(
    writer: LogWriter, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writer, "END_PATIENCE_SECS", 0.05)
    generation = uuid4()
    writer.open(generation, 1, [])
    outage.is_on = True
    put(writer, generation, *tokens("a"), EndEntry(index=1, status="complete"))
    assert writer.flush(generation, 1, PATIENCE_SECS)  # nothing is pending any more
    outage.is_on = False


def test_ending_writes_the_queued_entries(store: "redis.Redis[bytes]", lost: list[Claim]) -> None:
    writer = LogWriter(store, lambda *claim: lost.append(claim))
    writer.begin()
    generation = uuid4()
    writer.open(generation, 1, [])
    put(writer, generation, *tokens("x" * 5000))
    writer.end(PATIENCE_SECS)
    assert len(text(store, generation)) == 5000
