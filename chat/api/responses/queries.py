"""Parameters in the addresses of /v1/responses."""

from dataclasses import dataclass

from django.http import HttpRequest

from chat.api.responses.event_writer import NOTHING_SENT
from chat.schemas.decoding import invalid_field
from chat.schemas.stream_types import MAX_AFTER
from chat.services.responses.input_items import ItemPage

TRUE, FALSE = ("true", "1"), ("false", "0", "")
MAX_ITEMS, DEFAULT_ITEMS = 100, 20
MAX_ID_CHARS = 64


@dataclass(frozen=True)
class StreamQuery:
    is_stream: bool
    starting_after: int


def stream_query_of(request: HttpRequest) -> StreamQuery:
    """Raises InvalidRequest."""
    value = request.GET.get("stream", "").lower()
    if value not in (*TRUE, *FALSE):
        raise invalid_field("stream", "must be true or false")
    after = _number(request, "starting_after", NOTHING_SENT, least=0, most=MAX_AFTER)
    if "starting_after" in request.GET and value not in TRUE:
        raise invalid_field("starting_after", "needs stream=true")
    return StreamQuery(value in TRUE, after)


def item_page_of(request: HttpRequest) -> ItemPage:
    """Raises InvalidRequest."""
    order = request.GET.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid_field("order", 'must be one of "asc", "desc"')
    after = request.GET.get("after", "")
    if len(after) > MAX_ID_CHARS:
        raise invalid_field("after", f"must have at most {MAX_ID_CHARS} characters")
    limit = _number(request, "limit", DEFAULT_ITEMS, least=1, most=MAX_ITEMS)
    return ItemPage(limit=limit, after=after, is_descending=order == "desc")


def _number(request: HttpRequest, name: str, default: int, *, least: int, most: int) -> int:
    text = request.GET.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not is_number or not least <= int(text) <= most:
        raise invalid_field(name, f"must be a whole number from {least} to {most}")
    return int(text)
