"""An operation of the table: a method of a route with its types, parameters and errors."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from chat.schemas.answer_types import ErrorAnswer

Json = dict[str, Any]
Type = type[Struct]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query or a header."""

    name: str
    description: str
    schema: Json
    where: str = "query"


@dataclass(frozen=True)
class Operation:
    """A method of a route. ``answer`` None: the success has no JSON body, or ``media`` describes it."""

    name: str  # of the URL pattern
    method: str
    path: str
    summary: str
    tag: str
    answer: Type | None = None
    body: Type | None = None
    status: int = 200
    error: Type = ErrorAnswer
    other_answers: dict[int, Type] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    media: dict[str, Json] = field(default_factory=dict)
    empty_answers: tuple[int, ...] = ()
    body_is_optional: bool = False
    lists: Type | None = None  # the answer is a page of these
    is_public: bool = False


# Every operation with credentials may be refused for them; every one with a body for the body.
AUTH_ERRORS = (401, 403)
BODY_ERRORS = (400, 413, 415)
TURN_ERRORS = (404, 409, 413, 429, 500, 503, 504)
STORE_ERRORS = (503,)

KEY = Parameter(
    "Idempotency-Key",
    "The same key with the same body gives the same generation.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "header",
)

_EMPTY: Json = {"const": ""}
LIMIT = Parameter(
    "limit",
    "Entries of a page. 0 and empty: the default; -1: as many as allowed, which more than that count as, too.",
    {"anyOf": [{"type": "integer", "minimum": -1}, _EMPTY]},
)
OFFSET = Parameter("offset", "Entries before the page.", {"anyOf": [{"type": "integer", "minimum": 0}, _EMPTY]})
PAGE = (LIMIT, OFFSET)


def event_stream(kinds: Iterable[Type], description: str, *, head: Json | None = None) -> dict[str, Json]:
    """Return the media type of server-sent events with data of these types; ``head`` has the fields before the data."""
    references = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": references}}
    fields = {**(head or {}), "data": data}
    event = {"type": "object", "description": description, "required": list(fields), "properties": fields}
    return {"text/event-stream": {"schema": event}}


def named_event_stream(kinds: Iterable[Type]) -> dict[str, Json]:
    """Return the media type of a stream whose events are named as the ``type`` of their data."""
    description = "One server-sent event; lines that begin with a colon are comments."
    head: Json = {"event": {"type": "string", "description": "The event's `type`."}}
    return event_stream(kinds, description, head=head)


def store_query(
    name: str, path: str, summary: str, answer: Type, *, tag: str, parameters: tuple[Parameter, ...] = ()
) -> Operation:
    """Return the operation of a GET that only reads the store of memories."""
    return Operation(name, "get", path, summary, tag, answer, errors=STORE_ERRORS, parameters=parameters)
