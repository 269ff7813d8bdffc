"""Lines of an answer as server-sent events."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from django.http import StreamingHttpResponse

from chat.access.callers import Caller
from chat.services.turns import Turn
from chat.streaming.events import WireLine, lines_and_pings

# A comment needs no blank line behind it, and httpx-sse takes one for an event without data.
PING = b": ping\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event_stream(turn: Turn, caller: Caller, *, after: int = 0, stops: bool = True) -> StreamingHttpResponse:
    """The answer after token ``after``, as it comes."""
    events = _events(turn, caller, after, stops)
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=HEADERS)


async def _events(turn: Turn, caller: Caller, after: int, stops: bool) -> AsyncIterator[bytes]:
    async with aclosing(lines_and_pings(turn, caller=caller, after=after, stops=stops)) as source:
        async for line in source:
            yield PING if line is None else event(line)


def event(line: WireLine) -> bytes:
    # Escaped to ASCII: many clients split at U+2028 and U+0085 too, which JSON leaves as they are.
    data = json.dumps(line, ensure_ascii=True, allow_nan=False)
    return f"id: {line['id']}\ndata: {data}\n\n".encode("ascii")
