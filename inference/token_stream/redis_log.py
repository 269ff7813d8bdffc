"""The token log as it lies in Redis: what may be appended, by whom, and what the tail is.

Token i has the stream id ``i-0``; statuses and the end that follow it ``i-1``, ``i-2`` and so on. Beside the stream
lies the fence: the claim epoch that may write, and how far the log has got. Knows nothing of rows and workers.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
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
LIVE_TTL_SECS = 86_400  # a log whose owner vanished for good does not stay for ever
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

# KEYS: log, fence. ARGV: epoch, live ttl. From here on no lower epoch writes; answers with everything written so far.
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
    WRITTEN = "written"  # everything is in the log now, or was before
    STALE = "stale"  # a higher epoch owns the log: whoever tried has lost its claim
    GAP = "gap"  # the log is shorter than the writer thinks (Redis lost it): begin after ``last`` again
    ENDED = "ended"  # the log has its End
    BROKEN = "broken"  # what lies in Redis is no log of ours; the row will have to do


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


def decode(payload: bytes) -> AnyEntry:
    return _decoder.decode(payload)


def append(client: "redis.Redis[bytes]", appends: Sequence[Append]) -> list[Appended]:
    """Append for several generations in one round trip; raises StoreUnavailable when nothing is known.

    Repeating an append is safe: tokens that are there already are not written again.
    """
    with _translated("written"):
        try:
            return _append(client, appends)
        except NoScriptError:  # Redis was restarted and has forgotten the script
            client.script_load(APPEND)  # type: ignore[no-untyped-call]
            return _append(client, appends)


def fence(client: "redis.Redis[bytes]", generation_id: UUID, epoch: int) -> list[TokenEntry]:
    """Refuse all writers of lower epochs from now on; returns the tokens that were written until then."""
    with _translated("read"):
        keys = (log_key(generation_id), fence_key(generation_id))
        stream = client.eval(FENCE, 2, *keys, epoch, LIVE_TTL_SECS)  # type: ignore[no-untyped-call]
        return _tokens(fields[1] for _, fields in stream)


def close(client: "redis.Redis[bytes]", generation_id: UUID, epoch: int, end: EndEntry) -> None:
    """Write the End of a generation that no worker holds.

    A log shorter than ``end.index`` has lost its tokens with Redis; it gets no End, since its readers then
    turn to the row.
    """
    append(client, [Append(generation_id, epoch, [end])])


def tail(client: "redis.Redis[bytes]", generation_id: UUID) -> list[TokenEntry]:
    """The tokens in the log; empty when it is gone."""
    with _translated("read"):
        return _tokens(fields[FIELD] for _, fields in client.xrange(log_key(generation_id)))


def without_end(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> list[UUID]:
    """Those of them that have a log which nobody has ended; raises StoreUnavailable."""
    pipeline = client.pipeline(transaction=False)
    for each in generation_ids:
        pipeline.exists(log_key(each))
        pipeline.hexists(fence_key(each), "ended")
    with _translated("read"):
        answers = pipeline.execute()
    pairs = zip(generation_ids, answers[::2], answers[1::2], strict=True)
    return [each for each, is_there, has_ended in pairs if is_there and not has_ended]


def forget(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> None:
    with _translated("deleted"):
        client.delete(*[key(each) for each in generation_ids for key in (log_key, fence_key)])


def remove_entries(client: "redis.Redis[bytes]", generation_ids: Sequence[UUID]) -> None:
    """Delete what the logs say. The fences stay for their time: a late writer must not begin a log anew."""
    if generation_ids:
        with _translated("deleted"):
            client.delete(*map(log_key, generation_ids))


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"the token log cannot be {verb}: {error}") from error


def _tokens(payloads: Iterable[bytes]) -> list[TokenEntry]:
    return [entry for entry in map(decode, payloads) if isinstance(entry, TokenEntry)]


def _append(client: "redis.Redis[bytes]", appends: Sequence[Append]) -> list[Appended]:
    pipeline = client.pipeline(transaction=False)
    for one in appends:
        keys = (log_key(one.generation_id), fence_key(one.generation_id))
        pipeline.evalsha(_APPEND_SHA, 2, *keys, *_arguments(one))
    answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, (NoScriptError, *UNAVAILABLE_ERRORS)):
            raise answer
    return [_judged(one, answer) for one, answer in zip(appends, answers, strict=True)]


def _judged(one: Append, answer: list[Any] | ResponseError) -> Appended:
    """One generation's broken log must not keep the others from being written."""
    if isinstance(answer, ResponseError):
        log.error("generation %s: its token log cannot be written: %s", one.generation_id, answer)
        return Appended(Verdict.BROKEN, 0)
    verdict, last = answer
    return Appended(Verdict(verdict.decode()), last)


def _arguments(one: Append) -> list[int | str | bytes]:
    arguments: list[int | str | bytes] = [one.epoch, LIVE_TTL_SECS, settings.TOKEN_LOG_TTL_SECS, MAX_ENTRIES]
    for entry in one.entries:
        kind = "t" if isinstance(entry, TokenEntry) else "e" if isinstance(entry, EndEntry) else "s"
        arguments += [kind, entry.index, _encoder.encode(entry)]
    return arguments
