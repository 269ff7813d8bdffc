"""The block in which a program uses the GPU, for ``with`` and ``async with``. Knows neither lease nor Redis."""

import asyncio
from collections.abc import Callable
from typing import Protocol

POLL_SECS = 0.02


class BeginUse(Protocol):
    def __call__(self, *, waits: bool) -> bool: ...


class GpuUse:
    """A use of the GPU; not to be entered twice at a time."""

    def __init__(self, begin: BeginUse, end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> None:
        self._begin(waits=True)

    def __exit__(self, *_: object) -> None:
        self._end()

    async def __aenter__(self) -> None:
        # Polled rather than awaited in a thread: a cancelled task must leave no use behind that begins later.
        while not self._begin(waits=False):  # noqa: ASYNC110  the tenant's thread knows no event loop
            await asyncio.sleep(POLL_SECS)

    async def __aexit__(self, *_: object) -> None:
        self._end()
