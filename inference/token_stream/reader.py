"""Reading a generation: its token log while that exists, its row before and after.

A reader that lost its connection resumes after its last token; tokens come once and in order, statuses and the end
may be repeated.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain, pairwise, repeat
from uuid import UUID

import redis.asyncio
from django.db import InterfaceError, OperationalError

from inference.engine.sampling.logprob_records import unpack_logprobs
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.runtime.redis_client import UNAVAILABLE_ERRORS, async_client, log_key, shared_client
from inference.runtime.threads import in_thread
from inference.token_ids import unpack
from inference.token_stream import redis_log
from inference.token_stream.entries import AnyEntry, EndEntry, TokenEntry

log = logging.getLogger(__name__)

__all__ = ["TokenLogReader", "replay", "tail", "token_counts"]

SILENCE_SECS = 1.0  # one read of the log waits so long for entries
BATCH_ENTRIES = 500
REDIS_PATIENCE_SECS = 30.0
RESULT_COLUMNS = ("status", "text", "text_ends", "thought", "thought_ends", "logprobs", "output", "devices")


def tail(generation_id: UUID) -> list[TokenEntry]:
    """The tokens in the log. Raises StoreUnavailable."""
    return redis_log.tail(shared_client(), generation_id)


def token_counts(generation_ids: Sequence[UUID]) -> list[int]:
    """The number of tokens in each log. Raises StoreUnavailable."""
    return redis_log.last_indexes(shared_client(), generation_ids)


class TokenLogReader:
    """Stateless: one object may serve all readers."""

    async def follow(self, generation_id: UUID, after: int = 0) -> AsyncIterator[AnyEntry | None]:
        """Yield entries after token ``after`` until the End; None for about every second without one.

        Raises Generation.DoesNotExist for an unknown id, StoreUnavailable when Redis is unavailable for too long.
        """
        stream = _Stream(generation_id, after)
        last = after
        row_ended = False
        try:
            while True:
                entries = await stream.read()
                for entry in entries:
                    if isinstance(entry, TokenEntry):
                        last = entry.index
                    yield entry
                    if isinstance(entry, EndEntry):
                        return
                if entries:
                    continue
                # Silence: either a slow generation, or one whose log never gets its End; the row decides. The row is
                # written before the End entry, so an ended row counts at the second look only.
                row = await _ended_row(generation_id)
                if row is not None and (row_ended or not await stream.exists()):
                    for entry in replay(row, last):
                        yield entry
                    return
                row_ended = row is not None
                yield None
        finally:
            await stream.close()


class _Stream:
    """A reader's position in one stream, over a connection that may break."""

    def __init__(self, generation_id: UUID, after: int) -> None:
        self._generation_id = generation_id
        self._key = log_key(generation_id)
        self._position = f"{after}-0"
        self._client: redis.asyncio.Redis[bytes] = async_client(reply_timeout_secs=SILENCE_SECS + 2)
        self._unavailable_since: float | None = None
        self._has_read = False

    async def read(self) -> list[AnyEntry]:
        """Entries since the last read; empty after a second without any, or without Redis."""
        # The first read does not wait, so that a late reader gets the row's entries at once.
        block_ms = int(SILENCE_SECS * 1000) if self._has_read else None
        self._has_read = True
        try:
            answer = await self._client.xread({self._key: self._position}, count=BATCH_ENTRIES, block=block_ms)
        except UNAVAILABLE_ERRORS as error:
            now = time.monotonic()
            if self._unavailable_since is None:
                self._unavailable_since = now
                log.warning("token log not readable, trying again generation=%s error=%s", self._generation_id, error)
            if now - self._unavailable_since > REDIS_PATIENCE_SECS:
                raise StoreUnavailable(f"Redis has not answered for {REDIS_PATIENCE_SECS:g} s: {error}") from error
            await asyncio.sleep(SILENCE_SECS / 2)
            return []
        self._unavailable_since = None
        entries: list[AnyEntry] = []
        for _, messages in answer:
            for stream_id, fields in messages:
                self._position = stream_id.decode()
                entries.append(redis_log.decode(fields[redis_log.FIELD]))
        return entries

    async def exists(self) -> bool:
        """Return whether the log may still get an End; False, too, when Redis is unavailable."""
        try:
            return bool(await self._client.exists(self._key))
        except UNAVAILABLE_ERRORS:
            return False

    async def close(self) -> None:
        await self._client.aclose()  # type: ignore[attr-defined]


async def _ended_row(generation_id: UUID) -> Generation | None:
    """The row when it has ended. None, too, while the database is unavailable: the log does not need it."""
    try:
        return await in_thread(_load_ended, generation_id)
    except (OperationalError, InterfaceError) as error:
        log.warning("row not readable, trying again generation=%s error=%s", generation_id, error)
        return None


def _load_ended(generation_id: UUID) -> Generation | None:
    row = Generation.objects.only(*RESULT_COLUMNS).get(pk=generation_id)
    return row if row.is_ended else None


def replay(row: Generation, after: int) -> Iterator[AnyEntry]:
    """Yield the entries of an ended generation as its readers received them, tokens after ``after`` only.

    The row does not store the ids of tokens that only completed a stop sequence; they are 0, without text.
    """
    ends = [0, *unpack(row.text_ends)]
    thought_ends = [0, *unpack(row.thought_ends)]
    thoughts = chain((row.thought[start:end] for start, end in pairwise(thought_ends)), repeat(""))
    token_ids = chain(row.output_ids, repeat(0))
    devices = chain.from_iterable(repeat(run["device"], run["tokens"]) for run in row.devices)
    logprobs = chain(unpack_logprobs(row.logprobs), repeat(None))
    pieces = zip(pairwise(ends), thoughts, token_ids, devices, logprobs, strict=False)
    for index, ((start, end), thought, token, device, likely) in enumerate(pieces, start=1):
        if index > after:
            text = row.text[start:end]
            yield TokenEntry(index=index, token=token, text=text, thought=thought, device=device, logprobs=likely)
    last_text, last_thought = row.text[ends[-1] :], row.thought[thought_ends[-1] :]
    yield EndEntry(index=len(ends) - 1, status=row.status, text=last_text, thought=last_thought)
