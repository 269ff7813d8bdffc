"""Work of a web process that outlives the request that began it. Lost with the process: nothing may depend on it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)
# The event loop holds tasks weakly; without this set one could vanish in the middle.
_tasks: set[asyncio.Task[None]] = set()
# asyncio's own pool has six threads on two cores: a few requests that wait for the database would stop all others.
_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="gemma-web")


def spawn(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` beside everything else on this event loop; what it raises is logged."""
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_finished)


def _finished(task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and task.exception() is not None:
        logger.error("background work failed", exc_info=task.exception())


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what blocks (the ORM, services) in one of many threads, not in the one that all requests share."""
    return await sync_to_async(_with_own_connection, thread_sensitive=False, executor=_threads)(work, args, kwargs)


def _with_own_connection(work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    # A connection lives as long as its thread unless somebody closes it; the server may have hung up meanwhile.
    close_old_connections()
    try:
        return work(*args, **kwargs)
    finally:
        close_old_connections()
