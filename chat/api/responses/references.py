"""References to stored items in the input of a response: each gives way to its item, as if that had been sent."""

import uuid
from typing import Any

from chat.access.callers import Caller
from chat.api.responses.stored import stored_response
from chat.errors import InvalidRequest, NotFound, quoted
from chat.schemas.answer_types import as_json
from chat.schemas.responses.identifiers import response_id, row_id_of
from chat.services.responses import input_items, lookup

REFERENCE = "item_reference"
MAX_REFERENCES = 256  # each row is read, and the tokens of an answer


def with_stored_items(body: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Return a body without references. Raises NotFound for an item that the caller has not, InvalidRequest."""
    items = body.get("input")
    places = [index for index, item in enumerate(items if isinstance(items, list) else ()) if _is_reference(item)]
    if not isinstance(items, list) or not places:
        return body
    if len(places) > MAX_REFERENCES:
        raise InvalidRequest(f"input must not have more than {MAX_REFERENCES} references", field="input")
    known: dict[uuid.UUID, dict[str, Any]] = {}
    replaced = list(items)
    for index in places:
        name = items[index].get("id")
        row_id = row_id_of(name) if isinstance(name, str) else None
        if row_id is not None and row_id not in known:
            known[row_id] = _items_of(row_id, caller)
        item = known[row_id].get(name) if row_id else None
        if item is None:
            raise NotFound(f"there is no item {quoted(name)}", field=f"input[{index}].id")
        replaced[index] = item
    return body | {"input": replaced}


def _is_reference(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == REFERENCE


def _items_of(row_id: uuid.UUID, caller: Caller) -> dict[str, Any]:
    """Return the items of a response's output, or those that were sent as one message, by their ids."""
    try:
        generation = lookup.get_response(caller=caller, name=response_id(row_id))
        items = as_json(stored_response(generation))["output"]
    except NotFound:
        items = [as_json(item) for item in input_items.items_of_message(caller=caller, message_id=row_id)]
    return {item["id"]: item for item in items}
