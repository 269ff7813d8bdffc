"""Wait queue of the GPU in Redis, by priority, then by age. A waiter enters itself again after a wipe."""

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import redis

QUEUE = "gpu:line"
WAITER = "gpu:waiter:"
ALIVE_MS = 3000  # a waiter that has not refreshed its entry for so long has gone
PRIORITY_WEIGHT = 1e13  # more than the milliseconds until the year 2280


class Waiter(msgspec.Struct, frozen=True):
    """A request in the queue, as the status shows it."""

    requester: str
    session_id: str
    priority: int


@dataclass(frozen=True)
class QueueEntry:
    """An entry of the queue; ``refresh`` it at least every ALIVE_MS."""

    client: "redis.Redis[bytes]"
    waiter: Waiter
    token: str
    score: float

    @classmethod
    def new(cls, client: "redis.Redis[bytes]", waiter: Waiter) -> "QueueEntry":
        score = waiter.priority * PRIORITY_WEIGHT + time.time() * 1000
        return cls(client, waiter, secrets.token_hex(8), score)

    def refresh(self) -> None:
        pipe = self.client.pipeline(transaction=False)
        pipe.set(WAITER + self.token, msgspec.json.encode(self.waiter), px=ALIVE_MS)
        pipe.zadd(QUEUE, {self.token: self.score}, nx=True)
        pipe.execute()

    def is_first(self) -> bool:
        return first(self.client) == self.token

    def leave(self) -> None:
        pipe = self.client.pipeline(transaction=False)
        pipe.zrem(QUEUE, self.token)
        pipe.delete(WAITER + self.token)
        pipe.execute()


def first(client: "redis.Redis[bytes]") -> str | None:
    """Return the token of the next waiter; expired entries before it are removed."""
    while tokens := client.zrange(QUEUE, 0, 0):
        if client.exists(WAITER.encode() + tokens[0]):
            return tokens[0].decode("latin-1")
        client.zrem(QUEUE, tokens[0])
    return None


def waiting(client: "redis.Redis[bytes]") -> list[Waiter]:
    """Return the waiters in order."""
    tokens = client.zrange(QUEUE, 0, -1)
    values = client.mget([WAITER.encode() + token for token in tokens]) if tokens else []
    return [waiter for data in values if data and (waiter := _waiter_of(data))]


def _waiter_of(data: bytes) -> Waiter | None:
    """Decode an entry; None for one that another program wrote, which waits all the same."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(data, type=Waiter)
    return None
