"""Streams of OpenAI's form: the lines of the choices become chunks, framed as server-sent events.

Knows the order of events; ``ChunkWriter`` knows the chunks of one endpoint.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from django.http import StreamingHttpResponse

from chat.access.callers import Caller
from chat.api.openai.choices import AcceptedCall, choice_lines
from chat.api.sse import HEADERS, PING
from chat.api.turn_requests import failure, restarting
from chat.errors import ChatError
from chat.schemas.answer_types import as_json
from chat.schemas.openai.errors import OpenAIError
from chat.streaming.events import WireLine
from inference.enums import StreamState

DONE = b"data: [DONE]\n\n"
SHORT_PREFILL_SECS = 0.5


class ChunkWriter(Protocol):
    """Makes the chunks of one stream, for each line of a choice those that it stands for."""

    def started(self, number: int, line: WireLine) -> bytes: ...
    def token(self, number: int, line: WireLine) -> bytes: ...
    def status(self, number: int, line: WireLine) -> bytes: ...
    def ended(self, number: int, line: WireLine) -> bytes: ...
    def usage(self, lasts: list[WireLine]) -> bytes: ...


def chunk_stream(accepted: AcceptedCall, caller: Caller, writer: ChunkWriter) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        _events(accepted, caller, writer), content_type="text/event-stream; charset=utf-8", headers=HEADERS
    )


def data_event(value: dict[str, Any]) -> bytes:
    # Escaped to ASCII: many clients split at U+2028 and U+0085 too, which JSON leaves as they are.
    return b"data: " + json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n\n"


def is_waiting(line: WireLine, began_at: float) -> bool:
    """Return whether a state is one that a user waits for: not a prompt that is computed at once."""
    status = line["status"]
    if status["state"] != StreamState.PREFILL:
        return True
    return status.get("progress", 0.0) < 1 and time.monotonic() - began_at >= SHORT_PREFILL_SECS


def status_comment(line: WireLine) -> bytes:
    """Return a comment about the state for people who watch the bytes; clients skip it."""
    status = line["status"]
    details = "".join(
        f" {name}={value}" for name, value in status.items() if name in ("position", "wait_s", "progress")
    )
    return f": {status['state']}{details}\n".encode("ascii")


async def _events(accepted: AcceptedCall, caller: Caller, writer: ChunkWriter) -> AsyncIterator[bytes]:
    lasts: dict[int, WireLine] = {}
    began_at = time.monotonic()
    try:
        async with aclosing(choice_lines(accepted, caller)) as source:
            async for number, line in source:
                if line is not None and line["done"]:
                    lasts[number] = line
                if chunk := PING if line is None else _chunk(writer, number, line, began_at):
                    yield chunk
        if len(lasts) < len(accepted.turns):
            raise restarting(str(accepted.id))
    except ChatError as error:
        # The status is out; a client knows by this event, and by the missing [DONE], that the answer is not whole.
        yield data_event({"error": as_json(OpenAIError.of(error))})
        return
    if accepted.call.has_usage_chunk:
        yield writer.usage([lasts[number] for number in sorted(lasts)])
    yield DONE


def _chunk(writer: ChunkWriter, number: int, line: WireLine, began_at: float) -> bytes:
    if line["done"]:
        if "error" in line:
            # The id of an answer that ended stands beside its error, that of a broken stream within it.
            raise failure(line["error"], line.get("generation_id") or line["error"]["generation_id"])
        return writer.ended(number, line)
    if "generation_id" in line:
        return writer.started(number, line)
    if "status" in line:
        return (status_comment(line) if is_waiting(line, began_at) else b"") + writer.status(number, line)
    return writer.token(number, line)
