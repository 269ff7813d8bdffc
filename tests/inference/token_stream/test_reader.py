"""Following a generation: from every token on, late, after the log is gone, while Redis restarts."""

import asyncio
import threading
from collections.abc import Sequence
from uuid import UUID, uuid4

import msgspec
import pytest
import redis
from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

from inference.engine.sampling.logprob_records import TokenLogprobs
from inference.enums import FinishReason, Status, StreamState
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.queue import generations
from inference.queue.results import CANCELLED, Ending, FinalText, end_entry, row_columns
from inference.queue.termination import terminate
from inference.runtime.redis_client import log_key
from inference.token_stream import reader, redis_log
from inference.token_stream.entries import AnyEntry, EndEntry, StatusEntry, TokenEntry
from inference.token_stream.reader import TokenLogReader, replay
from inference.token_stream.redis_log import Append
from tests.inference.making import PARAMS, queued, tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

COMPLETE = Ending(Status.COMPLETE, FinishReason.STOP)
TEXT = "Hello, wörld 🙂!"


async def collect(generation_id: UUID, after: int = 0, *, limit_secs: float = 20.0) -> list[AnyEntry]:
    """Everything until the end, silences left out."""
    async with asyncio.timeout(limit_secs):
        following = TokenLogReader().follow(generation_id, after)
        return [entry async for entry in following if entry is not None]


def text_of(entries: Sequence[AnyEntry]) -> str:
    return "".join(entry.text for entry in entries if isinstance(entry, TokenEntry | EndEntry))


def indexes(entries: Sequence[AnyEntry]) -> list[int]:
    return [entry.index for entry in entries if isinstance(entry, TokenEntry)]


def claimed() -> Generation:
    queued()
    row = Generation.objects.claim_next(worker="w")
    assert row is not None
    return row


def write(store: "redis.Redis[bytes]", row: Generation, *entries: AnyEntry) -> None:
    redis_log.append(store, [Append(row.pk, row.claim_epoch, entries)])


def finish_row(row: Generation, text: str, *, held_back: str = "") -> EndEntry:
    """Write the row's end only; returns the End entry that the log has yet to get."""
    entries = tokens(text)
    columns = row_columns(COMPLETE, entries, PARAMS, vocabulary=None, last=FinalText(held_back, len(entries)))
    assert Generation.objects.finish(generation_id=row.pk, epoch=row.claim_epoch, columns=columns)
    return end_entry(columns, entries)


async def test_an_unknown_generation_raises() -> None:
    with pytest.raises(Generation.DoesNotExist):
        await collect(uuid4())


@pytest.mark.parametrize("source", ["log", "row"])
async def test_a_reader_goes_on_after_any_token(store: "redis.Redis[bytes]", source: str) -> None:
    row = await database_sync_to_async(claimed)()
    write(store, row, *tokens(TEXT))
    write(store, row, await database_sync_to_async(finish_row)(row, TEXT, held_back=" END"))
    if source == "row":
        store.flushall()
    for after in range(len(TEXT) + 1):
        entries = await collect(row.pk, after)
        assert indexes(entries) == list(range(after + 1, len(TEXT) + 1))
        assert TEXT[:after] + text_of(entries) == TEXT + " END"
        assert isinstance(entries[-1], EndEntry)
        assert sum(isinstance(entry, EndEntry) for entry in entries) == 1


async def test_a_reader_that_leaves_after_every_token_misses_nothing(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()

    async def write_slowly() -> None:
        for index, char in enumerate(TEXT, start=1):
            write(store, row, *tokens(char, first=index))
            await asyncio.sleep(0.01)
        write(store, row, await database_sync_to_async(finish_row)(row, TEXT))

    writing = asyncio.create_task(write_slowly())
    got, after, is_over = "", 0, False
    async with asyncio.timeout(20):
        while not is_over:
            async for entry in TokenLogReader().follow(row.pk, after):
                if isinstance(entry, TokenEntry):
                    assert entry.index == after + 1
                    got, after = got + entry.text, entry.index
                    break
                if isinstance(entry, EndEntry):
                    got, is_over = got + entry.text, True
    await writing
    assert got == TEXT


async def test_statuses_and_the_end_are_repeated_tokens_are_not(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()
    write(
        store, row, *tokens("ab"), StatusEntry(index=2, state=StreamState.LOADING), EndEntry(index=2, status="complete")
    )
    entries = await collect(row.pk, 2)
    assert [type(entry) for entry in entries] == [StatusEntry, EndEntry]


async def test_silence_yields_none_about_every_second() -> None:
    row = await database_sync_to_async(claimed)()
    loop = asyncio.get_running_loop()
    began = loop.time()
    silences: list[float] = []
    async for entry in TokenLogReader().follow(row.pk):
        assert entry is None
        silences.append(loop.time() - began)
        if len(silences) == 4:
            break
    assert 2.0 < silences[-1] < 6.0


async def test_several_readers_get_the_same(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()
    readers = [asyncio.create_task(collect(row.pk)) for _ in range(5)]
    for index, char in enumerate(TEXT, start=1):
        write(store, row, *tokens(char, first=index))
        await asyncio.sleep(0)
    write(store, row, await database_sync_to_async(finish_row)(row, TEXT))
    assert {text_of(entries) for entries in await asyncio.gather(*readers)} == {TEXT}


async def test_a_row_that_ended_without_an_end_in_its_log_ends_its_readers(store: "redis.Redis[bytes]") -> None:
    """The worker died between the row and the End entry, and more is in the row than in the log."""
    row = await database_sync_to_async(claimed)()
    write(store, row, *tokens(TEXT[:4]))
    await database_sync_to_async(finish_row)(row, TEXT)
    entries = await collect(row.pk, 2)
    assert TEXT[:2] + text_of(entries) == TEXT
    assert indexes(entries) == list(range(3, len(TEXT) + 1))


async def test_an_end_entry_that_comes_just_after_the_row_is_not_overtaken(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()
    write(store, row, *tokens("ab"))
    reading = asyncio.create_task(collect(row.pk))
    await asyncio.sleep(1.2)  # the reader is in its silence and will look at the row
    end = await database_sync_to_async(finish_row)(row, "ab")
    await asyncio.sleep(0.1)
    write(store, row, end)
    entries = await reading
    assert text_of(entries) == "ab"
    assert sum(isinstance(entry, EndEntry) for entry in entries) == 1


async def test_a_log_that_redis_lost_and_got_again_has_no_repetition(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()
    write(store, row, *tokens("abc"))
    reading = asyncio.create_task(collect(row.pk))
    await asyncio.sleep(0.3)
    store.flushall()
    write(store, row, *tokens("ab"))
    await asyncio.sleep(0.1)
    write(store, row, *tokens("abcdef"), await database_sync_to_async(finish_row)(row, "abcdef"))
    entries = await reading
    assert indexes(entries) == [1, 2, 3, 4, 5, 6]
    assert text_of(entries) == "abcdef"


async def test_a_generation_cancelled_in_the_queue_ends_its_readers() -> None:
    row = await database_sync_to_async(queued)()
    reading = asyncio.create_task(collect(row.pk))
    await asyncio.sleep(0.2)
    assert await database_sync_to_async(terminate)(row.pk, CANCELLED)
    entries = await reading
    assert entries == [EndEntry(index=0, status="interrupted")]


async def test_a_deleted_generation_ends_its_readers(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()
    write(store, row, *tokens("ab"))
    reading = asyncio.create_task(collect(row.pk))
    await asyncio.sleep(0.2)
    await database_sync_to_async(generations.delete)(generation_ids=[row.pk])
    entries = await reading
    assert text_of(entries) == "ab"
    assert isinstance(entries[-1], EndEntry)
    # The worker that still computes it is refused.
    assert redis_log.append(store, [Append(row.pk, row.claim_epoch, tokens("c", first=3))])[0].verdict == "stale"


async def test_a_log_without_a_reader_leaves_no_connection_behind(store: "redis.Redis[bytes]") -> None:
    row = await database_sync_to_async(claimed)()
    write(store, row, *tokens("ab"))
    before = len(store.client_list())
    for _ in range(10):
        async for _entry in TokenLogReader().follow(row.pk):
            break
    await asyncio.sleep(0.1)
    assert len(store.client_list()) <= before + 1
    assert store.exists(log_key(row.pk))


def test_replay_has_the_devices_and_the_same_pieces() -> None:
    entries = [*tokens("ab"), *tokens("cd", first=3, device="gpu")]
    row = Generation(**row_columns(COMPLETE, entries, PARAMS, vocabulary=None, last=FinalText("e", 4)))
    assert list(replay(row, 0)) == [*entries, EndEntry(index=4, status="complete", text="e")]
    assert list(replay(row, 9)) == [EndEntry(index=4, status="complete", text="e")]


def test_replay_divides_thoughts_as_the_log_did_and_has_the_log_probabilities() -> None:
    likely = TokenLogprobs(-0.5, [(7, -0.5), (8, -1.25)])
    entries = [
        TokenEntry(index=1, token=7, thought="Hm", logprobs=likely),
        TokenEntry(index=2, token=8, logprobs=likely),
        TokenEntry(index=3, token=9, thought=".", text="A", logprobs=likely),
        TokenEntry(index=4, token=9, text="B", logprobs=likely),
    ]
    params = msgspec.structs.replace(PARAMS, n_logprobs=2)
    columns = row_columns(COMPLETE, entries, params, vocabulary=None, last=FinalText("C", 4, "?"))
    row = Generation(**columns)
    assert (row.thought, row.text, row.n_thought_tokens) == ("Hm.?", "ABC", 3)
    end = EndEntry(index=4, status="complete", text="C", thought="?")
    for after in range(5):
        assert list(replay(row, after)) == [*entries[after:], end]
    assert end_entry(columns, entries) == end


def test_without_an_answer_all_tokens_are_of_the_thought() -> None:
    entries = [TokenEntry(index=n, token=7, thought="m") for n in (1, 2)]
    row = Generation(**row_columns(COMPLETE, entries, PARAMS, vocabulary=None, last=FinalText("", 2)))
    assert (row.text, row.n_thought_tokens) == ("", 2)
    assert Generation(**row_columns(COMPLETE, tokens("ab"), PARAMS, vocabulary=None)).n_thought_tokens == 0


async def test_redis_away_for_too_long_is_an_error_and_an_ended_row_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    running, ended = await database_sync_to_async(claimed)(), await database_sync_to_async(claimed)()
    await database_sync_to_async(finish_row)(ended, TEXT)
    monkeypatch.setattr("inference.token_stream.reader.REDIS_PATIENCE_SECS", 0.6)
    monkeypatch.setattr("django.conf.settings.REDIS_URL", "unix:///nonexistent/valkey.sock")
    assert text_of(await collect(ended.pk, 3)) == TEXT[3:]
    with pytest.raises(StoreUnavailable):
        await collect(running.pk)


async def test_one_reader_does_not_wait_for_the_database_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Channels all sockets would otherwise share one thread for all looks at rows."""
    together = threading.Barrier(3)

    def look(_: UUID) -> None:
        together.wait(10.0)

    monkeypatch.setattr(reader, "_load_ended", look)
    await asyncio.gather(*[reader._ended_row(uuid4()) for _ in range(3)])


async def test_a_database_that_is_away_for_a_while_ends_no_reader(
    store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await database_sync_to_async(claimed)()
    look, away = reader._load_ended, iter([OperationalError("restarting"), InterfaceError("closed")])

    def look_or_fail(generation_id: UUID) -> Generation | None:
        if error := next(away, None):
            raise error
        return look(generation_id)

    monkeypatch.setattr(reader, "_load_ended", look_or_fail)
    reading = asyncio.create_task(collect(row.pk))
    await asyncio.sleep(1.5)
    await asyncio.to_thread(write, store, row, *tokens("ab"), EndEntry(index=2, status=Status.COMPLETE))
    assert text_of(await reading) == "ab"
