"""Work of a web process that outlives the request that began it. Lost with the process: nothing may depend on it."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from inference.runtime.threads import in_thread

__all__ = ["in_thread", "spawn"]

logger = logging.getLogger(__name__)
# The event loop holds tasks weakly; without this set one could vanish in the middle.
_tasks: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` beside everything else on this event loop; what it raises is logged."""
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_finished)


def _finished(task: asyncio.Task[None]) -> None:
    _tasks.discard(task)
    if not task.cancelled() and task.exception() is not None:
        logger.error("background work failed", exc_info=task.exception())
