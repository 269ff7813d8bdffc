"""Calls of blocking functions (the ORM, services) from an event loop, in a thread pool. Knows no requests."""

from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection

P = ParamSpec("P")
T = TypeVar("T")

# asyncio's own pool has six threads on two cores: a few requests that wait for the database would stop all others.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="gemma-web")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``work`` in a thread of the pool; asgiref's default is one thread for all requests and sockets."""
    call: Callable[..., Coroutine[Any, Any, T]] = sync_to_async(
        call_with_own_connection, thread_sensitive=False, executor=_threads
    )
    return await call(work, *args, **kwargs)


def call_with_own_connection(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``work`` on a thread of a pool, with that thread's connection to the database."""
    # Connections belong to their thread and stay open; the server may have closed one meanwhile.
    _close_old_connection()
    try:
        return work(*args, **kwargs)
    finally:
        _close_old_connection()


def _close_old_connection() -> None:
    # SQLite closes no connection by itself, and opening one costs more than most queries: it stays while it works.
    if connection.vendor == "sqlite" and not connection.errors_occurred and not connection.in_atomic_block:
        return
    close_old_connections()
