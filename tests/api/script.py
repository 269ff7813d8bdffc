"""A worker with scripted tokens, which writes rows and token logs as the real one does, and readers of its answers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from chat.access.callers import Caller
from chat.services.turns import Turn
from chat.streaming import events
from chat.streaming.background import in_thread
from chat.streaming.events import WireLine
from inference.engine.params import SamplingParams, SequenceParams
from inference.enums import FinishReason, Status, StreamState
from inference.models import Generation, Priority
from inference.queue import generations
from inference.queue.results import Ending, end_entry, row_columns
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log, subscribers
from inference.token_stream.entries import AnyEntry, StatusEntry, TokenEntry

PARAMS = SequenceParams(sampling=SamplingParams(seed=7, temperature=0.0))
LOCAL = Caller.local()
STOPPED = Ending(Status.COMPLETE, FinishReason.STOP)


class ScriptedWorker:
    """Holds the claim on one generation. All calls block; in asynchronous tests they go through ``in_thread``."""

    def __init__(self, generation: Generation) -> None:
        claimed = Generation.objects.claim_next(worker="script")
        assert claimed is not None
        assert claimed.pk == generation.pk
        self.generation = claimed
        self.tokens: list[TokenEntry] = []

    def says(self, *texts: str) -> None:
        """Emit one token for each text."""
        self._emit([TokenEntry(index=0, token=65, text=text) for text in texts])

    def thinks(self, *texts: str) -> None:
        """Emit one token of a thought for each text."""
        self._emit([TokenEntry(index=0, token=65, thought=text) for text in texts])

    def _emit(self, unnumbered: list[TokenEntry]) -> None:
        first = len(self.tokens) + 1
        tokens = [msgspec.structs.replace(token, index=index) for index, token in enumerate(unnumbered, start=first)]
        self.tokens += tokens
        self._append(tokens)

    def waits(self, state: str, **more: Any) -> None:  # noqa: ANN401
        self._append([StatusEntry(index=len(self.tokens), state=StreamState(state), **more)])

    def ends(self, ending: Ending = STOPPED, *, held_back: str = "", tells_the_log: bool = True) -> None:
        columns = row_columns(ending, self.tokens, PARAMS, vocabulary=None)
        columns["text"] += held_back
        generation = self.generation
        assert Generation.objects.finish(generation_id=generation.pk, epoch=generation.claim_epoch, columns=columns)
        if tells_the_log:
            self._append([end_entry(columns, self.tokens)])

    def _append(self, entries: Sequence[AnyEntry]) -> None:
        append = redis_log.Append(self.generation.pk, self.generation.claim_epoch, entries)
        (result,) = redis_log.append(shared_client(), [append])
        assert result.verdict is redis_log.Verdict.WRITTEN


def queued(
    owner: str = "local", *, priority: Priority = Priority.INTERACTIVE, idempotency_key: str | None = None
) -> Generation:
    return generations.create(
        owner=owner,
        params=PARAMS,
        prompt_ids=[1, 2, 3],
        priority=priority,
        idempotency_key=idempotency_key,
        timeout_secs=60.0,
    )


async def make(
    *, priority: Priority = Priority.INTERACTIVE, idempotency_key: str | None = None
) -> tuple[Turn, ScriptedWorker]:
    generation = await in_thread(queued, priority=priority, idempotency_key=idempotency_key)
    return Turn(generation_id=generation.pk), await in_thread(ScriptedWorker, generation)


async def read(turn: Turn, after: int = 0) -> list[WireLine]:
    async with asyncio.timeout(10):
        return [line async for line in events.lines(turn, caller=LOCAL, after=after)]


async def until_read(turn: Turn) -> None:
    async with asyncio.timeout(5):
        while not await subscribers.count(turn.generation_id):  # noqa: ASYNC110  Redis sends no event for it
            await asyncio.sleep(0.01)


def text_of(lines: list[WireLine]) -> str:
    return "".join(line["token"] for line in lines)
