"""Lists in pages: ``?limit`` and ``?offset`` -> ``{count, next, previous, results}``.

A size is clamped, as callers mean it; a text that is no number, or a negative place, is refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db import models
from rest_framework.request import Request
from rest_framework.response import Response

from chat.errors import InvalidRequest
from chat.schemas.filters import AS_MANY_AS_ALLOWED, MAX_INTEGER, clamped

Row = TypeVar("Row", bound=models.Model)

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_OFFSET = 1_000_000_000
# Languages with one type of number write whole ones as 5.0.
_WHOLE = re.compile(r"(-?)([0-9]+)(\.0*)?")
_MAX_DIGITS = 18


def page(request: Request, rows: models.QuerySet[Row], as_json: Callable[[Row], dict[str, Any]]) -> Response:
    """Return one page of ``rows``, with links to its neighbours."""
    limit, offset = page_limit(request.query_params), page_offset(request.query_params)
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


def page_limit(params: Mapping[str, str], default: int = DEFAULT_LIMIT, largest: int = MAX_LIMIT) -> int:
    """Return the size of a page: the default for 0 and nothing, ``largest`` for -1 and all above."""
    return clamped(_whole_number(params, "limit", smallest=AS_MANY_AS_ALLOWED), default, largest)


def page_offset(params: Mapping[str, str]) -> int:
    return min(_whole_number(params, "offset", smallest=0), MAX_OFFSET)


def _whole_number(params: Mapping[str, str], name: str, *, smallest: int) -> int:
    """Return a number of the query string, 0 for none. Raises InvalidRequest."""
    match = _WHOLE.fullmatch(params.get(name) or "0")
    if match is None:
        raise InvalidRequest(f"{name} must be a whole number of at least {smallest}", field=name)
    digits = match[2].lstrip("0")
    size = int(digits or "0") if len(digits) <= _MAX_DIGITS else MAX_INTEGER
    number = -size if match[1] else size
    if number < smallest:
        raise InvalidRequest(f"{name} must be at least {smallest}", field=name)
    return number


def _link(request: Request, limit: int, offset: int) -> str:
    other = {name: value for name, value in request.query_params.items() if name not in ("limit", "offset")}
    return request.build_absolute_uri(f"{request.path}?{urlencode(other | {'limit': limit, 'offset': offset})}")
