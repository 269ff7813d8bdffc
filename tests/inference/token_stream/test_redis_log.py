"""Appending to a token log: fencing, gaps, repetition, the end."""

from uuid import uuid4

import pytest
import redis
from django.conf import settings

from inference.enums import StreamState
from inference.errors import StoreUnavailable
from inference.runtime.redis_client import fence_key, log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import AnyEntry, EndEntry, StatusEntry
from inference.token_stream.redis_log import Append, Appended, Verdict
from tests.inference.making import tokens

GENERATION = uuid4()


def append(store: "redis.Redis[bytes]", epoch: int, *entries: AnyEntry) -> Appended:
    return redis_log.append(store, [Append(GENERATION, epoch, entries)])[0]


def written(store: "redis.Redis[bytes]") -> str:
    return "".join(token.text for token in redis_log.tail(store, GENERATION))


def test_tokens_are_appended_in_order(store: "redis.Redis[bytes]") -> None:
    assert append(store, 1, *tokens("ab")) == Appended(Verdict.WRITTEN, 2)
    assert append(store, 1, *tokens("c", first=3)) == Appended(Verdict.WRITTEN, 3)
    assert [stream_id for stream_id, _ in store.xrange(log_key(GENERATION))] == [b"1-0", b"2-0", b"3-0"]


def test_a_repeated_append_writes_nothing_twice(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("abc"))
    assert append(store, 1, *tokens("abcd")) == Appended(Verdict.WRITTEN, 4)
    assert written(store) == "abcd"


def test_a_gap_is_refused_with_the_index_to_continue_from(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("ab"))
    assert append(store, 1, *tokens("d", first=4)) == Appended(Verdict.GAP, 2)
    assert written(store) == "ab"


def test_a_writer_with_a_lower_epoch_is_refused(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("ab"))
    append(store, 2, *tokens("c", first=3))
    assert append(store, 1, *tokens("X", first=4)).verdict is Verdict.STALE
    assert append(store, 1, EndEntry(index=3, status="complete")).verdict is Verdict.STALE
    assert written(store) == "abc"


def test_the_fence_alone_refuses_the_former_owner(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("ab"))
    assert [token.text for token in redis_log.fence(store, GENERATION, 2)] == ["a", "b"]
    assert append(store, 1, *tokens("X", first=3)).verdict is Verdict.STALE
    assert append(store, 2, *tokens("c", first=3)) == Appended(Verdict.WRITTEN, 3)


def test_a_lower_fence_does_not_lower_the_epoch(store: "redis.Redis[bytes]") -> None:
    redis_log.fence(store, GENERATION, 5)
    redis_log.fence(store, GENERATION, 4)
    assert append(store, 4, *tokens("X")).verdict is Verdict.STALE


def test_two_writers_interleaved_leave_one_text(store: "redis.Redis[bytes]") -> None:
    """The former owner goes on writing while the new one takes over; only the new one's tokens follow the fence."""
    append(store, 1, *tokens("Hel"))
    seen = redis_log.fence(store, GENERATION, 2)
    for step, char in enumerate("lo wo"):
        append(store, 1, *tokens("zzzzz"[: step + 1], first=4))
        append(store, 2, *tokens(char, first=len(seen) + 1 + step))
    assert written(store) == "Hello wo"


def test_statuses_and_the_end_lie_between_the_tokens(store: "redis.Redis[bytes]") -> None:
    append(
        store,
        1,
        StatusEntry(index=0, state=StreamState.LOADING),
        StatusEntry(index=0, state=StreamState.PREFILL),
        *tokens("a"),
    )
    append(store, 1, StatusEntry(index=1, state=StreamState.LOADING), EndEntry(index=1, status="complete"))
    ids = [stream_id for stream_id, _ in store.xrange(log_key(GENERATION))]
    assert ids == [b"0-1", b"0-2", b"1-0", b"1-1", b"1-2"]


def test_nothing_follows_the_end(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("a"), EndEntry(index=1, status="complete"))
    assert append(store, 1, EndEntry(index=1, status="failed")).verdict is Verdict.ENDED
    assert append(store, 2, *tokens("b", first=2)).verdict is Verdict.ENDED
    assert store.xlen(log_key(GENERATION)) == 2


def test_an_end_beyond_a_lost_log_is_not_written(store: "redis.Redis[bytes]") -> None:
    redis_log.close(store, GENERATION, 3, EndEntry(index=12, status="interrupted"))
    assert store.xlen(log_key(GENERATION)) == 0


def test_the_log_expires_some_time_after_its_end(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("a"))
    assert store.ttl(log_key(GENERATION)) > settings.TOKEN_LOG_TTL_SECS
    append(store, 1, EndEntry(index=1, status="complete"))
    for key in (log_key(GENERATION), fence_key(GENERATION)):
        assert 0 < store.ttl(key) <= settings.TOKEN_LOG_TTL_SECS


def test_appends_of_several_generations_are_judged_each(store: "redis.Redis[bytes]") -> None:
    other = uuid4()
    redis_log.fence(store, other, 9)
    verdicts = redis_log.append(store, [Append(GENERATION, 1, tokens("a")), Append(other, 1, tokens("b"))])
    assert [one.verdict for one in verdicts] == [Verdict.WRITTEN, Verdict.STALE]


def test_a_redis_that_forgot_the_script_is_taught_again(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("a"))
    store.script_flush()
    assert append(store, 1, *tokens("b", first=2)).verdict is Verdict.WRITTEN


def test_a_log_that_is_no_log_keeps_no_other_from_being_written(store: "redis.Redis[bytes]") -> None:
    other = uuid4()
    store.set(log_key(GENERATION), "what somebody else left here")
    verdicts = redis_log.append(store, [Append(GENERATION, 1, tokens("a")), Append(other, 1, tokens("b"))])
    assert [one.verdict for one in verdicts] == [Verdict.BROKEN, Verdict.WRITTEN]


def test_a_full_redis_is_away_and_nothing_is_half_written(store: "redis.Redis[bytes]") -> None:
    append(store, 1, *tokens("a"))
    store.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable):
            append(store, 1, *tokens("bcd", first=2))
    finally:
        store.config_set("maxmemory", 0)
    assert written(store) == "a"
    assert append(store, 1, *tokens("bcd", first=2)) == Appended(Verdict.WRITTEN, 4)


@pytest.mark.parametrize("text", ["", "é", "🙂" * 3, "\n\t\"'", "<end_of_turn>"])
def test_entries_survive_the_way_through_redis(store: "redis.Redis[bytes]", text: str) -> None:
    entry = tokens("x")[0]
    append(store, 1, type(entry)(index=1, token=5, text=text, device="gpu"))
    assert redis_log.tail(store, GENERATION) == [type(entry)(index=1, token=5, text=text, device="gpu")]
