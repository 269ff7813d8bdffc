"""redis-py's asyncio client with commands that end when they are cancelled.

Internals used: ``execute_command`` as the one way of every command, ``connection_pool.connection_kwargs``.
"""

import asyncio
from typing import Any, Self

import redis.asyncio
from redis.exceptions import TimeoutError as RedisTimeoutError


class CancellableRedis(redis.asyncio.Redis):  # type: ignore[type-arg]  # generic in its stubs only
    """Keeps its own time limit of a command, ``reply_timeout_secs``.

    redis-py times its writes with ``asyncio.wait_for``, which before Python 3.12 loses a cancellation that arrives just
    when the write has ended: the reader of a client that left would go on until its answer ends. ``asyncio.timeout``
    loses none.
    """

    reply_timeout_secs = 1.0

    @classmethod
    def connect(cls, url: str, *, reply_timeout_secs: float, **options: Any) -> Self:  # noqa: ANN401  redis-py's own options
        client: Self = cls.from_url(url, **options)  # type: ignore[assignment]  # its stubs name the base class
        client.connection_pool.connection_kwargs.pop("socket_timeout", None)  # the URL may bring one
        client.reply_timeout_secs = reply_timeout_secs
        return client

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        try:
            async with asyncio.timeout(self.reply_timeout_secs):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise RedisTimeoutError(f"{args[0]}: no reply within {self.reply_timeout_secs:g} s") from error
