"""Shared steps of the chat's views: from a request to an accepted turn, and from a last line to a status."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from chat.access.authentication import caller_of
from chat.access.callers import Caller
from chat.api.body_parsing import LONG_BODY_BYTES, read_object
from chat.errors import ChatError, InvalidRequest, MethodNotAllowed, Unavailable
from chat.schemas.chat_bodies import chat_request, completion_request
from chat.schemas.error_bodies import error_response
from chat.schemas.requests import ChatRequest
from chat.services import turns
from chat.services.turns import Turn
from chat.streaming.admission import among_long_bodies, in_arrival_order
from chat.streaming.background import in_thread
from chat.streaming.events import WireLine, lines, start, stops_when_left
from inference.models import Generation

P = ParamSpec("P")
T = TypeVar("T")
View = Callable[Concatenate[HttpRequest, P], Coroutine[Any, Any, HttpResponseBase]]
CallerView = Callable[Concatenate[HttpRequest, Caller, P], Awaitable[HttpResponseBase]]

MAX_KEY_CHARS = 255
# The status of a generation's failure, by its code; any other code is a 500.
FAILURE_STATUS = {
    "context_overflow": 413,
    "grammar_failed": 400,
    "log_ended": 503,
    "model_unavailable": 503,
    "not_found": 404,
    "queue_full": 503,
    "store_unavailable": 503,
    "timeout": 504,
    "too_many_attempts": 503,
}


def wrong_method(methods: Sequence[str]) -> HttpResponseBase:
    """Return a 405 with the served methods in ``Allow``."""
    response = error_response(MethodNotAllowed(f"use {' or '.join(methods)} here"))
    response.headers["Allow"] = ", ".join(with_head(methods))
    return response


def with_head(methods: Sequence[str]) -> list[str]:
    return [*methods, *(["HEAD"] if "GET" in methods else [])]


def without_stream(response: HttpResponseBase) -> HttpResponseBase:
    """Return a response to HEAD: a stream whose body is not sent must not be waited for."""
    return HttpResponse(headers=dict(response.headers)) if response.streaming else response


def for_callers(*methods: str, any_key: bool = False) -> Callable[[CallerView[P]], View[P]]:
    """An asynchronous view for these methods that gets the caller; the middleware renders its errors. With ``any_key``
    callers who need no credentials may send a key of another service."""

    def decorate(view: CallerView[P]) -> View[P]:
        # CSRF matters for sessions only, and there caller_of looks at it.
        @csrf_exempt
        @wraps(view)
        async def answer(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if request.method not in with_head(methods):
                return wrong_method(methods)
            caller = await in_thread(caller_of, request, any_key=any_key)
            response = await view(request, caller, *args, **kwargs)
            return without_stream(response) if request.method == "HEAD" else response

        return answer

    return decorate


@dataclass(frozen=True)
class AcceptedTurn:
    """An accepted turn; ``stops``: it is stopped when it has no reader."""

    turn: Turn
    stops: bool


async def ask_chat(
    request: HttpRequest,
    caller: Caller,
    *,
    read: Callable[[object], ChatRequest] = chat_request,
    goes_on_alone: bool = False,
) -> AcceptedTurn:
    """Store the turn of a body. ``goes_on_alone``: batch work and requests with a key need no reader."""
    is_long = has_long_body(request)
    async with in_arrival_order(is_long=is_long):
        body = await read_in_thread(request, lambda request: read(read_object(request)))
        return await accepted_chat(request, caller, body, goes_on_alone=goes_on_alone, is_long=is_long)


async def accepted_chat(
    request: HttpRequest, caller: Caller, body: ChatRequest, *, goes_on_alone: bool, is_long: bool
) -> AcceptedTurn:
    """Store the turn of a request that was read already; ``is_long``: its texts take long to encode."""
    key = idempotency_key(request)
    stops = not goes_on_alone or stops_when_left(body.priority, key)
    begin = partial(turns.start_turn, caller=caller, request=body, idempotency_key=key, request_digest=body.digest)
    return AcceptedTurn(await start(begin, caller=caller, stops=stops, is_long=is_long), stops)


async def ask_completion(request: HttpRequest, caller: Caller) -> AcceptedTurn:
    is_long = has_long_body(request)
    async with in_arrival_order(is_long=is_long):
        body = await read_in_thread(request, lambda request: completion_request(read_object(request)))
        key = idempotency_key(request)
        stops = stops_when_left(body.priority, key)
        begin = partial(
            turns.start_completion, caller=caller, request=body, idempotency_key=key, request_digest=body.digest
        )
        return AcceptedTurn(await start(begin, caller=caller, stops=stops, is_long=is_long), stops)


async def read_in_thread(request: HttpRequest, read: Callable[[HttpRequest], T]) -> T:
    """Return ``read`` of a request with a body: decoding ten thousand messages would hold up the event loop."""
    async with among_long_bodies(is_long=has_long_body(request)):
        return await in_thread(read, request)


def has_long_body(request: HttpRequest) -> bool:
    """Return whether the texts of a request may take long to encode; also if their size is not known yet."""
    length = request.headers.get("Content-Length", "")
    is_short = length.isdecimal() and int(length) <= LONG_BODY_BYTES
    return not is_short or "Content-Encoding" in request.headers


def idempotency_key(request: HttpRequest) -> str | None:
    return read_key(request.headers.get("Idempotency-Key"))


def read_key(key: object, *, field: str | None = None) -> str | None:
    """Return an Idempotency-Key unchanged, None for none. Raises InvalidRequest."""
    if key is None:
        return None
    if not isinstance(key, str) or not key.isprintable() or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"the Idempotency-Key must have 1 to {MAX_KEY_CHARS} printable characters", field=field)
    return key


async def wait_for_end(accepted: AcceptedTurn, caller: Caller) -> Generation:
    """Wait for the end of a turn as a reader does. Raises ChatError when there is no answer to give."""
    async for _ in lines_to_end(accepted, caller):
        pass
    return await in_thread(turns.get_generation, caller=caller, generation_id=accepted.turn.generation_id)


async def lines_to_end(accepted: AcceptedTurn, caller: Caller) -> AsyncGenerator[WireLine, None]:
    """Yield the lines of an answer, the final one last. Raises ChatError when there is no answer to give."""
    # A reader like any other: the wait ends with the client, and Redis may be away meanwhile.
    last: WireLine = {}
    async with aclosing(lines(accepted.turn, caller=caller, stops=accepted.stops)) as source:
        async for line in source:
            last = line
            if "error" not in line:
                yield line
    generation_id = str(accepted.turn.generation_id)
    # The answer goes on without this process.
    if not last.get("done"):
        raise restarting(generation_id)
    if "error" in last:
        raise failure(last["error"], generation_id)


def restarting(generation_id: str) -> Unavailable:
    return Unavailable(
        f"this process ends; the answer can be read from /chat/stream/{generation_id}",
        code="restarting",
        retry_after_secs=1,
        extra={"generation_id": generation_id},
    )


def failure(body: dict[str, Any], generation_id: str) -> ChatError:
    """Return the error of a last line with a status."""
    arguments = ("code", "message", "field")
    extra = {name: value for name, value in body.items() if name not in arguments} | {"generation_id": generation_id}
    error = ChatError(body["message"], code=body["code"], field=body.get("field"), extra=extra)
    error.status = FAILURE_STATUS.get(error.code, 500)
    error.retry_after_secs = 5 if error.status == Unavailable.status else None
    return error
