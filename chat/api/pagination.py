"""Lists in pages: ``?limit`` and ``?offset`` -> ``{count, next, previous, results}``; a wrong number is refused."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db import models
from rest_framework.request import Request
from rest_framework.response import Response

from chat.errors import InvalidRequest

Row = TypeVar("Row", bound=models.Model)

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_OFFSET = 1_000_000_000


def page(request: Request, rows: models.QuerySet[Row], as_json: Callable[[Row], dict[str, Any]]) -> Response:
    """Return one page of ``rows``, with links to its neighbours."""
    limit = whole_number(request.query_params, "limit", DEFAULT_LIMIT, smallest=1, largest=MAX_LIMIT)
    offset = whole_number(request.query_params, "offset", 0, smallest=0, largest=MAX_OFFSET)
    # Counted apart from the page: a row that comes in between is on the next page, not a fault.
    count = rows.count()
    return Response(
        {
            "count": count,
            "next": _link(request, limit, offset + limit) if offset + limit < count else None,
            "previous": _link(request, limit, max(0, offset - limit)) if offset else None,
            "results": [as_json(row) for row in rows[offset : offset + limit]],
        }
    )


def whole_number(params: Mapping[str, str], name: str, default: int, *, smallest: int, largest: int) -> int:
    """Return a number of the query string. Raises InvalidRequest."""
    text = params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 12) or not smallest <= int(text) <= largest:
        raise InvalidRequest(f"{name} must be a whole number from {smallest} to {largest}", field=name)
    return int(text)


def _link(request: Request, limit: int, offset: int) -> str:
    other = {name: value for name, value in request.query_params.items() if name not in ("limit", "offset")}
    return request.build_absolute_uri(f"{request.path}?{urlencode(other | {'limit': limit, 'offset': offset})}")
