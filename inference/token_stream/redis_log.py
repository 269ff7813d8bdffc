"""The token log in Redis: a stream of entries, and a fence that decides which claim may append.

Token i has the stream id ``i-0``; statuses and the end that follow it have ``i-1``, ``i-2`` and so on. The fence holds
the claim epoch that may write, and the index of the last entry. Knows neither rows nor workers.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import msgspec
import redis
from django.conf import settings
from redis.exceptions import NoScriptError, ResponseError

from inference.errors import StoreUnavailable
from inference.runtime.redis_client import UNAVAILABLE_ERRORS, fence_key, log_key
from inference.token_stream.entries import AnyEntry, EndEntry, TokenEntry

log = logging.getLogger(__name__)

FIELD = b"e"
LIVE_TTL_SECS = 86_400  # bounds a log whose owner never comes back
MAX_ENTRIES = 400_000  # three times the longest context; statuses are few

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyEntry] = msgspec.msgpack.Decoder(AnyEntry)

# KEYS: log, fence. ARGV: epoch, live ttl, ended ttl, max entries, then (kind, index, payload) for every entry.
APPEND = """
local fence = redis.call('HMGET', KEYS[2], 'epoch', 'last', 'sub', 'ended')
local epoch, last, sub = tonumber(fence[1]) or 0, tonumber(fence[2]) or 0, tonumber(fence[3]) or 0
if tonumber(ARGV[1]) < epoch then return {'stale', last} end
if fence[4] then return {'ended', last} end
local verdict, ended = 'written', false
for i = 5, #ARGV, 3 do
  local kind, index = ARGV[i], tonumber(ARGV[i + 1])
  local id = nil
  if kind == 't' and index == last + 1 then
    last, sub = index, 0
    id = index .. '-0'
  elseif index > last then
    verdict = 'gap'
    break
  elseif kind ~= 't' then
    sub = sub + 1
    id = last .. '-' .. sub
    ended = kind == 'e'
  end
  if id then redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], id, 'e', ARGV[i + 2]) end
end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'last', last, 'sub', sub)
if ended then redis.call('HSET', KEYS[2], 'ended', 1) end
local ttl = ended and ARGV[3] or ARGV[2]
redis.call('EXPIRE', KEYS[1], ttl)
redis.call('EXPIRE', KEYS[2], ttl)
return {verdict, last}
"""

# KEYS: log, fence. ARGV: epoch, live ttl. Refuses lower epochs from now on; returns all entries written so far.
FENCE = """
local epoch = tonumber(redis.call('HGET', KEYS[2], 'epoch')) or 0
if tonumber(ARGV[1]) > epoch then
  redis.call('HSET', KEYS[2], 'epoch', ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return redis.call('XRANGE', KEYS[1], '-', '+')
"""


_APPEND_SHA = hashlib.sha1(APPEND.encode(), usedforsecurity=False).hexdigest()


class Verdict(StrEnum):
    WRITTEN = "written"  # all entries are in the log
    STALE = "stale"  # a higher epoch owns the log: the writer has lost its claim
    GAP = "gap"  # the log is shorter than expected (Redis lost it): write again after ``last``
    ENDED = "ended"  # the log has its End
    BROKEN = "broken"  # the key holds no token log; readers use the row


@dataclass(frozen=True)
class Appended:
    verdict: Verdict
    last: int  # index of the last token in the log


@dataclass(frozen=True)
class Append:
    """Entries of one generation under one claim, in order."""

    generation_id: UUID
    epoch: int
    entries: Sequence[AnyEntry]

    def script_arguments(self) -> list[int | str | bytes]:
        """Return ARGV of the script APPEND."""
        arguments: list[int | str | bytes] = [self.epoch, LIVE_TTL_SECS, settings.TOKEN_LOG_TTL_SECS, MAX_ENTRIES]
        for entry in self.entries:
            kind = "t" if isinstance(entry, TokenEntry) else "e" if isinstance(entry, EndEntry) else "s"
            arguments += [kind, entry.index, _encoder.encode(entry)]
        return arguments


def decode(payload: bytes) -> AnyEntry:
    return _decoder.decode(payload)


def append(client: "redis.Redis[bytes]", appends: Sequence[Append]) -> list[Appended]:
    """Append for several generations in one round trip. Raises StoreUnavailable when the result is unknown.

    Repeating an append is safe: tokens in the log are not written again.
    """
    with _translated("written"):
        try:
            return _append(client, appends)
        except NoScriptError:  # a restarted Redis has lost the script
            client.script_load(APPEND)  # type: ignore[no-untyped-call]
            return _append(client, appends)


def fence(client: "redis.Redis[bytes]", generation_id: UUID, epoch: int) -> list[TokenEntry]:
    """Refuse writers of lower epochs from now on; returns the tokens written so far. Raises StoreUnavailable."""
    with _translated("read"):
        keys = (log_key(generation_id), fence_key(generation_id))
        stream = client.eval(FENCE, 2, *keys, epoch, LIVE_TTL_SECS)  # type: ignore[no-untyped-call]
        return _tokens(fields[1] for _, fields in stream)


def close(client: "redis.Redis[bytes]", generation_id: UUID, epoch: int, end: EndEntry) -> None:
    """Write the End of a generation that no worker holds.

    A log shorter than ``end.index`` was lost with Redis. It gets no End, so that its readers turn to the row.
    """
    append(client, [Append(generation_id, epoch, [end])])


def tail(client: "redis.Redis[bytes]", generation_id: UUID) -> list[TokenEntry]:
    """The tokens in the log; empty when it is gone."""
    with _translated("read"):
        return _tokens(fields[FIELD] for _, fields in client.xrange(log_key(generation_id)))


def without_end(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> list[UUID]:
    """The generations that have a log without an End. Raises StoreUnavailable."""
    pipeline = client.pipeline(transaction=False)
    for generation_id in generation_ids:
        pipeline.exists(log_key(generation_id))
        pipeline.hexists(fence_key(generation_id), "ended")
    with _translated("read"):
        replies = pipeline.execute()
    states = zip(generation_ids, replies[::2], replies[1::2], strict=True)
    return [generation_id for generation_id, exists, has_ended in states if exists and not has_ended]


def last_indexes(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> list[int]:
    """The index of the last entry of each log, which is its number of tokens; 0 without a log."""
    pipeline = client.pipeline(transaction=False)
    for generation_id in generation_ids:
        pipeline.xrevrange(log_key(generation_id), count=1)
    with _translated("read"):
        replies = pipeline.execute()
    return [int(entries[0][0].split(b"-")[0]) if entries else 0 for entries in replies]


def delete(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> None:
    with _translated("deleted"):
        client.delete(*[key(generation_id) for generation_id in generation_ids for key in (log_key, fence_key)])


def remove_entries(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> None:
    """Delete the logs and keep their fences until they expire, so that a late writer cannot begin a log anew."""
    if generation_ids:
        with _translated("deleted"):
            client.delete(*map(log_key, generation_ids))


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"The token log cannot be {verb}: {error}") from error


def _tokens(payloads: Iterable[bytes]) -> list[TokenEntry]:
    return [entry for entry in map(decode, payloads) if isinstance(entry, TokenEntry)]


def _append(client: "redis.Redis[bytes]", appends: Sequence[Append]) -> list[Appended]:
    pipeline = client.pipeline(transaction=False)
    for one in appends:
        keys = (log_key(one.generation_id), fence_key(one.generation_id))
        pipeline.evalsha(_APPEND_SHA, 2, *keys, *one.script_arguments())
    answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, (NoScriptError, *UNAVAILABLE_ERRORS)):
            raise answer
    results = []
    for one, answer in zip(appends, answers, strict=True):
        # One generation's broken log must not keep the others from being written.
        if isinstance(answer, ResponseError):
            log.error("token log broken generation=%s error=%s", one.generation_id, answer)
            results.append(Appended(Verdict.BROKEN, 0))
        else:
            verdict, last = answer
            results.append(Appended(Verdict(verdict.decode()), last))
    return results
