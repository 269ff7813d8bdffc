"""A whole answer as one JSON body, with white space before it while it is computed.

Many HTTP clients give up after five silent seconds. White space may stand before a JSON value, so it is sent until
the answer is there. The status is sent with it: a later failure is an error object in a body of status 200.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.http import JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from chat.schemas.error_bodies import as_chat_error, error_object

Body = dict[str, Any]
SPACE = b" "


async def patient_json(answering: Coroutine[Any, Any, Body]) -> HttpResponseBase:
    """Return the result or raise the error of ``answering`` if it ends within JSON_PATIENCE_SECS, else stream it.

    ``answering`` is cancelled when the client leaves, at whatever stage.
    """
    task = asyncio.ensure_future(answering)
    try:
        done, _ = await asyncio.wait({task}, timeout=settings.JSON_PATIENCE_SECS)
    except asyncio.CancelledError:
        await _cancelled(task)
        raise
    if done:
        return JsonResponse(task.result())

    async def spaces_and_result() -> AsyncIterator[bytes]:
        try:
            while not task.done():
                yield SPACE
                await asyncio.wait({task}, timeout=settings.JSON_PATIENCE_SECS)
            yield json.dumps(_outcome(task)).encode()
        finally:
            await _cancelled(task)

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(spaces_and_result(), content_type="application/json", headers=headers)


def _outcome(task: "asyncio.Task[Body]") -> Body:
    error = task.exception()
    return task.result() if error is None else {"error": error_object(as_chat_error(error))}


async def _cancelled(task: "asyncio.Task[Body]") -> None:
    """End the wait for an answer; its error is of no use any more."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
