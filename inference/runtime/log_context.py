"""The request and the generation that log lines belong to.

Context variables carry both ids through tasks and the threads that they call. A thread that serves many generations
binds nothing: for its lines the request is found by the generation that the line names. Knows no HTTP.
"""

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

# Logging is configured before the models can be imported.
if TYPE_CHECKING:
    from inference.models import Generation

# Where a generation's details hold the id of the request that created it.
DETAILS_KEY = "request_id"
# Nothing in it can end a line, begin a field or colour a terminal.
SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_REQUESTS = 4096

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_generation_id: ContextVar[str] = ContextVar("generation_id", default="")


# Request ids by generation, the last MAX_REQUESTS that this process has worked on.
_requests: OrderedDict[str, str] = OrderedDict()
_lock = threading.Lock()


def new_request_id() -> str:
    return secrets.token_hex(8)


def safe_request_id(value: object) -> str:
    """Return ``value`` if it is safe in a log line, else a new id."""
    return value if isinstance(value, str) and SAFE_ID.fullmatch(value) else new_request_id()


def request_id() -> str:
    """The request of the current context; empty outside of one."""
    return _request_id.get()


def generation_id() -> str:
    """The generation of the current context; empty before it is known."""
    return _generation_id.get()


def request_of(generation: str) -> str:
    """The request that a generation was last bound with in this process; empty when it is unknown."""
    return _requests.get(generation, "")


def remember(generation: UUID, request: str) -> None:
    """Let lines that name the generation find its request."""
    with _lock:
        _requests[str(generation)] = request
        _requests.move_to_end(str(generation))
        if len(_requests) > MAX_REQUESTS:
            _requests.popitem(last=False)


def bind(*, request: str = "", generation: UUID | None = None) -> None:
    """Set the ids for the rest of this task or thread; those left out stay as they are."""
    if request:
        _request_id.set(request)
    if generation is not None:
        _generation_id.set(str(generation))
        if _request_id.get():
            remember(generation, _request_id.get())


@contextmanager
def bound(*, request: str = "", generation: UUID | None = None) -> Iterator[None]:
    """Set both ids for a block; those left out are empty in it."""
    tokens = (_request_id.set(""), _generation_id.set(""))
    bind(request=request, generation=generation)
    try:
        yield
    finally:
        _request_id.reset(tokens[0])
        _generation_id.reset(tokens[1])


@contextmanager
def bound_to(row: "Generation") -> Iterator[None]:
    """The block works on this generation, under the id of the request that created it."""
    with bound(request=stored_request_id(row), generation=row.pk):
        yield


def stored_request_id(row: "Generation") -> str:
    """The request id in the row's details; empty for rows of older versions."""
    value = row.details.get(DETAILS_KEY, "")
    return value if isinstance(value, str) and SAFE_ID.fullmatch(value) else ""
