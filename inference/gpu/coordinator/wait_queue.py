"""The waiting line for the card: by priority, then by age. In Redis; whoever waits puts itself back after a wipe."""

import secrets
import time
from dataclasses import dataclass

import msgspec
import redis

LINE = "gpu:line"
WAITER = "gpu:waiter:"
ALIVE_MS = 3000  # who has not asked again for so long has gone
PRIORITY_WEIGHT = 1e13  # more than the milliseconds until the year 2280


class Waiter(msgspec.Struct, frozen=True):
    """Somebody in the line, for whoever looks at it."""

    requester: str
    session_id: str
    priority: int


@dataclass(frozen=True)
class QueueEntry:
    """One place in the line; ``keep`` it at least every ALIVE_MS."""

    client: "redis.Redis[bytes]"
    waiter: Waiter
    token: str
    score: float

    @classmethod
    def new(cls, client: "redis.Redis[bytes]", waiter: Waiter) -> "QueueEntry":
        score = waiter.priority * PRIORITY_WEIGHT + time.time() * 1000
        return cls(client, waiter, secrets.token_hex(8), score)

    def keep(self) -> None:
        pipe = self.client.pipeline(transaction=False)
        pipe.set(WAITER + self.token, msgspec.json.encode(self.waiter), px=ALIVE_MS)
        pipe.zadd(LINE, {self.token: self.score}, nx=True)
        pipe.execute()

    def is_first(self) -> bool:
        return first(self.client) == self.token

    def leave(self) -> None:
        pipe = self.client.pipeline(transaction=False)
        pipe.zrem(LINE, self.token)
        pipe.delete(WAITER + self.token)
        pipe.execute()


def first(client: "redis.Redis[bytes]") -> str | None:
    """The token of whoever is next; those who have gone are taken out on the way."""
    while tokens := client.zrange(LINE, 0, 0):
        if client.exists(WAITER + tokens[0].decode()):
            return tokens[0].decode()
        client.zrem(LINE, tokens[0])
    return None


def waiting(client: "redis.Redis[bytes]") -> list[Waiter]:
    """Everybody in the line, in order."""
    tokens = client.zrange(LINE, 0, -1)
    found = client.mget([WAITER + token.decode() for token in tokens]) if tokens else []
    return [msgspec.json.decode(data, type=Waiter) for data in found if data]
