"""Several streams of lines as one: each line comes with the number of its stream."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")

# A reader that is slower than the answers must slow them down, not fill the memory.
MAX_WAITING = 64


async def merged(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """Yield the items of all sources as they come, until the last one ends. An error of one ends all."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as source:
            async for item in source:
                yield 0, item
        return
    queue: asyncio.Queue[tuple[int, T]] = asyncio.Queue(MAX_WAITING)

    async def fill(number: int, source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source) as items:
            async for item in items:
                await queue.put((number, item))

    tasks = [asyncio.create_task(fill(number, source)) for number, source in enumerate(sources)]
    ending = asyncio.gather(*tasks)
    try:
        while not (ending.done() and queue.empty()):
            taking = asyncio.create_task(queue.get())
            either: list[asyncio.Future[Any]] = [taking, ending]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                yield taking.result()
            else:
                taking.cancel()
        await ending
    finally:
        ending.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
