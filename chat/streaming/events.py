"""Stream events of a running answer for every interface: started, statuses, tokens, and one last line.

Knows the objects of the wire format; SSE, WebSocket, /chat and commands frame them.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError

from chat.access.callers import Caller
from chat.errors import ChatError, TooManyRequests
from chat.schemas import answers
from chat.schemas.answer_types import as_json
from chat.schemas.error_bodies import as_chat_error, error_object
from chat.schemas.stream_types import LineLogprobs, PromptProgress, StreamStatus
from chat.services import turns
from chat.services.turns import Turn
from chat.streaming.background import in_long_thread, in_thread, spawn
from chat.streaming.disconnect import counted_reader, expect_reader, shutdown
from inference.engine.sampling.logprob_records import TokenLogprobs
from inference.enums import StreamState
from inference.models import ENDED, Priority
from inference.queue import generations
from inference.runtime import abort, log_context
from inference.token_ids import unpack
from inference.token_stream.entries import AnyEntry, EndEntry, StatusEntry, TokenEntry
from inference.token_stream.reader import TokenLogReader

WireLine = dict[str, Any]

log = logging.getLogger(__name__)

PROCESS_ENDS = "this process ends; resume with the id of the last line"
LEAST_LOGPROB = -9999.0
MAX_READERS = 64  # of one answer in this process
TOKEN_ID = "token_id"  # noqa: S105  field of lines within this process
# Time to render an answer that was awaited whole, after its stream has ended.
FINAL_RENDER_SECS = 0.3


@dataclass
class _OpenStreams:
    """Answers that this web process is sending, and the readers of each."""

    count: int = 0
    readers: Counter[UUID] = field(default_factory=Counter)

    @contextmanager
    def counted(self, generation_id: UUID) -> Iterator[None]:
        """Raises TooManyRequests: each line is sent to every reader, during which others wait."""
        if self.readers[generation_id] >= MAX_READERS:
            raise TooManyRequests(f"this answer has {MAX_READERS} readers already", code="too_many_readers")
        self.count += 1
        self.readers[generation_id] += 1
        try:
            yield
        finally:
            self.count -= 1
            self.readers[generation_id] -= 1
            if not self.readers[generation_id]:
                del self.readers[generation_id]


_open_streams = _OpenStreams()


@dataclass
class _Progress:
    """Lines sent to one reader so far. ``index`` is that of the last token, after which a resumed stream starts."""

    index: int
    position: int | None = None
    is_claimed: bool = False  # by a worker: it has no place in the queue any more
    is_over: bool = False
    last_sent: float = field(default_factory=time.monotonic)

    def line(self, **content: Any) -> WireLine:  # noqa: ANN401
        self.last_sent = time.monotonic()
        self.is_over = self.is_over or bool(content.get("done"))
        return {"id": self.index, "token": "", "done": False, **content}


async def start(begin: Callable[[], Turn], *, caller: Caller, stops: bool, is_long: bool = False) -> Turn:
    """Run ``begin``, which stores a turn; a client that disconnects meanwhile does not interrupt its transaction.

    With ``stops`` the work ends soon when the client leaves, and a stored turn that gets no reader is cancelled.
    ``is_long``: the request has a long text, and runs in a thread that no other work waits for.
    """

    def expect_readers(done: asyncio.Task[Turn]) -> None:
        if not done.cancelled() and done.exception() is None:
            stored = done.result()
            for choice in (stored, *stored.alternatives):
                expect_reader(choice.generation_id, caller=caller)

    # A context of its own: work that follows the departure, such as the cancel, is not aborted.
    context = copy_context()
    flag = context.run(abort.new_flag)
    task = asyncio.create_task(in_long_thread(begin) if is_long else in_thread(begin), context=context)
    if stops:
        task.add_done_callback(expect_readers)
    try:
        turn = await asyncio.shield(task)
    except asyncio.CancelledError:
        if stops:
            flag.set()
        raise
    log_context.bind(generation=turn.generation_id)
    return turn


def resumed(*, caller: Caller, generation_id: UUID) -> tuple[Turn, bool]:
    """Return a turn to read again, and whether a disconnect cancels it. Raises NotFound. Blocks."""
    generation = turns.get_generation(caller=caller, generation_id=generation_id)
    message = getattr(generation, "message", None)
    turn = Turn(
        generation_id=generation.pk,
        conversation_id=message.conversation_id if message else None,
        message_id=message.pk if message else None,
    )
    return turn, stops_when_left(generation.priority, generation.idempotency_key)


def has_last_line(*, caller: Caller, generation_id: UUID, after: int) -> bool:
    """Return whether ``after`` is the id of the last line: nothing remains to be sent. Raises NotFound. Blocks."""
    generation = turns.get_generation(caller=caller, generation_id=generation_id)
    return generation.is_ended and after == len(unpack(generation.text_ends)) + 1


def stops_when_left(priority: int, idempotency_key: str | None) -> bool:
    """Batch work and requests with an Idempotency-Key continue without readers: their clients come back."""
    return priority == Priority.INTERACTIVE and idempotency_key is None


async def lines(turn: Turn, *, caller: Caller, after: int = 0, stops: bool = True) -> AsyncGenerator[WireLine, None]:
    """Yield every line of the answer after token ``after``; the last one alone has ``done``.

    A process that shuts down ends the stream without a last line: the reader resumes at another one.
    """
    async with aclosing(lines_and_pings(turn, caller=caller, after=after, stops=stops)) as source:
        async for line in source:
            if line is not None:
                yield line


async def lines_and_pings(
    turn: Turn, *, caller: Caller, after: int = 0, stops: bool = True
) -> AsyncGenerator[WireLine | None, None]:
    """Yield as ``lines`` does, and None whenever nothing was sent for STREAM_PING_SECS."""
    log_context.bind(generation=turn.generation_id)
    progress = _Progress(after)
    try:
        async with aclosing(_read(turn, caller, progress, stops=stops)) as source:
            async for line in source:
                yield line
    except Exception as error:  # noqa: BLE001  the one place where a failure of a stream becomes its last line
        body = error_object(as_chat_error(error))
        if not progress.is_over:
            yield progress.line(done=True, error=body | {"generation_id": str(turn.generation_id)})


async def _read(
    turn: Turn, caller: Caller, progress: _Progress, *, stops: bool
) -> AsyncGenerator[WireLine | None, None]:
    ids = {"conversation_id": _text(turn.conversation_id), "message_id": _text(turn.message_id)}
    with _open_streams.counted(turn.generation_id):
        yield progress.line(generation_id=str(turn.generation_id), **ids)
        if turn.needs_preparation:
            spawn(in_thread(turns.prepare_turn, generation_id=turn.generation_id))
            yield progress.line(status=_status(StreamState.RETRIEVING))
        counting = counted_reader(turn.generation_id, caller=caller, stops=stops)
        async with counting as reader, aclosing(_follow(turn, caller, progress)) as source:
            async for line in source:
                reader.is_over = progress.is_over
                yield line


async def _follow(turn: Turn, caller: Caller, progress: _Progress) -> AsyncGenerator[WireLine | None, None]:
    follow = cast(AsyncGenerator[AnyEntry | None, None], TokenLogReader().follow(turn.generation_id, progress.index))
    async with aclosing(follow) as entries:
        async for entry in entries:
            if isinstance(entry, EndEntry):
                yield await _last(turn, caller, entry, progress)
                return
            # After the end entry, so that a complete answer is sent whole.
            if shutdown.is_set:
                yield progress.line(status=_status(StreamState.YIELDING, reason=PROCESS_ENDS))
                return
            line = await _line(turn, entry, progress)
            if line is not None or time.monotonic() - progress.last_sent >= settings.STREAM_PING_SECS:
                progress.last_sent = time.monotonic()
                yield line
    raise ChatError("the end of the answer is missing", code="log_ended")


async def _line(turn: Turn, entry: AnyEntry | None, progress: _Progress) -> WireLine | None:
    if isinstance(entry, TokenEntry):
        progress.index, progress.is_claimed = entry.index, True
        ids = {TOKEN_ID: entry.token} if turn.has_token_ids else {}
        return progress.line(**entry_line(entry), **ids)
    if isinstance(entry, StatusEntry):
        progress.is_claimed = True
        tokens = entry.prompt
        status = _status(
            entry.state,
            position=entry.position,
            progress=entry.progress,
            reason=entry.reason,
            prompt=tokens and PromptProgress(total=tokens.n_total, processed=tokens.n_done, cache=tokens.n_cached),
        )
        return progress.line(status=status)
    # A second of silence. The place in the queue is in no entry, since it changes with other generations.
    return None if progress.is_claimed else await _queued(turn, progress)


def entry_line(entry: TokenEntry | EndEntry) -> WireLine:
    """Return the fields of a line that an entry has: ``token``, and ``thought`` and ``logprobs`` if there are any."""
    extras: WireLine = {"thought": entry.thought} if entry.thought else {}
    if isinstance(entry, TokenEntry) and entry.logprobs is not None:
        extras["logprobs"] = _logprobs(entry.token, entry.logprobs)
    return {"token": entry.text, **extras}


async def _queued(turn: Turn, progress: _Progress) -> WireLine | None:
    try:
        place = await in_thread(generations.queue_position, turn.generation_id)
    except (OperationalError, InterfaceError):
        return None  # optional: tokens and end come from the log, without the database
    if place is None or place.position == progress.position:
        return None
    progress.position = place.position
    return progress.line(status=_status(StreamState.QUEUED, position=place.position, wait_s=round(place.wait_secs, 1)))


async def _last(turn: Turn, caller: Caller, end: EndEntry, progress: _Progress) -> WireLine:
    generation = await in_thread(turns.get_generation, caller=caller, generation_id=turn.generation_id)
    if generation.status not in ENDED:
        log.error("token log ended before its row generation=%s status=%s", generation.pk, generation.status)
    # An id of its own, by which a browser that reconnects shows that it has everything.
    progress.index = end.index + 1
    extras = await in_thread(answers.final_line, generation)
    return progress.line(done=True) | extras | entry_line(end) | {"done": True}


async def close_all(timeout_secs: float) -> None:
    """Ask all readers to resume at another process; return once they got that line, or after the timeout."""
    shutdown.is_set = True
    deadline = time.monotonic() + timeout_secs
    while _open_streams.count and time.monotonic() < deadline:  # noqa: ASYNC110  once per process
        await asyncio.sleep(0.02)
    await asyncio.sleep(min(FINAL_RENDER_SECS, max(0.0, deadline - time.monotonic())))


def _status(state: StreamState, **details: Any) -> WireLine:  # noqa: ANN401  fields of StreamStatus
    fields = {name: value for name, value in details.items() if value is not None}
    return as_json(StreamStatus(state=state, **fields))


def _logprobs(token: int, logprobs: TokenLogprobs) -> WireLine:
    # JSON has no infinity: OpenAI writes LEAST_LOGPROB for a token that is impossible.
    top = [(alternative, max(value, LEAST_LOGPROB)) for alternative, value in logprobs.top]
    return as_json(LineLogprobs(token=token, logprob=max(logprobs.logprob, LEAST_LOGPROB), top=top))


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
