"""Background work of a web process that outlives its request. It ends with the process: nothing may depend on it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from inference.runtime.threads import in_check_thread, in_long_thread, in_thread

__all__ = ["in_check_thread", "in_long_thread", "in_thread", "spawn"]

log = logging.getLogger(__name__)
# The event loop holds tasks by weak references; without this set one could be collected while it runs.
_tasks: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` as a task of this event loop; an exception is logged."""

    def finished(ended: asyncio.Task[None]) -> None:
        _tasks.discard(ended)
        if not ended.cancelled() and ended.exception() is not None:
            log.error("background work failed", exc_info=ended.exception())

    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(finished)
