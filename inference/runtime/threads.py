"""Calls of blocking functions (the ORM, services) from an event loop, in a thread pool. Knows no requests."""

import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection

P = ParamSpec("P")
T = TypeVar("T")

# asyncio's own pool has six threads on two cores: a few requests that wait for the database would stop all others.
N_THREADS = 32
_threads = ThreadPoolExecutor(max_workers=N_THREADS, thread_name_prefix="gemma-web")
# Long texts keep a core busy for a second, where other work waits for the database: half of the cores stay free.
N_LONG_THREADS = max(1, min(N_THREADS, os.cpu_count() or 1) // 2)
_long_threads = ThreadPoolExecutor(max_workers=N_LONG_THREADS, thread_name_prefix="gemma-web-long")
# For /health: behind other work its checks would exceed their time, and report a healthy service as unhealthy.
N_CHECK_THREADS = 16
_check_threads = ThreadPoolExecutor(max_workers=N_CHECK_THREADS, thread_name_prefix="gemma-web-check")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``work`` in a thread of the pool; asgiref's default is one thread for all requests and sockets."""
    return await _call(_threads, work, *args, **kwargs)


async def in_long_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``work`` on a long text as ``in_thread`` does, in one of few threads that no other work waits for."""
    return await _call(_long_threads, work, *args, **kwargs)


async def in_check_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a check of the service's health as ``in_thread`` does, in a thread that no other work has."""
    return await _call(_check_threads, work, *args, **kwargs)


async def _call(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    call: Callable[..., Coroutine[Any, Any, T]] = sync_to_async(
        call_with_own_connection, thread_sensitive=False, executor=pool
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
    # One whose transaction was cut short before autocommit was back would commit nothing, and call no on_commit.
    is_manual = connection.connection is not None and not connection.autocommit
    if connection.vendor == "sqlite" and not (connection.errors_occurred or connection.in_atomic_block or is_manual):
        return
    close_old_connections()
