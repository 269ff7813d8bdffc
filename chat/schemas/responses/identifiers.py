"""Ids of responses and their items, made of the ids of generations and messages."""

import re
import uuid

RESPONSE_PREFIX = "resp_"
MESSAGE_PREFIX = "msg_"
REASONING_PREFIX = "rs_"
CALL_PREFIX = "fc_"
OUTPUT_PREFIX = "fco_"
_HEX = re.compile("[0-9a-f]{32}", re.ASCII)
_ITEM = re.compile("(?:msg|rs|fc|fco)_([0-9a-f]{32})[0-9a-f]{0,4}", re.ASCII)


def response_id(generation_id: uuid.UUID) -> str:
    return f"{RESPONSE_PREFIX}{generation_id.hex}"


def message_item_id(row_id: uuid.UUID) -> str:
    """Return the id of a message item: of an answer by its generation, of any other by its message."""
    return f"{MESSAGE_PREFIX}{row_id.hex}"


def output_item_id(prefix: str, generation_id: uuid.UUID, number: int) -> str:
    """Return the id of the item with that number among those of its kind."""
    return f"{prefix}{generation_id.hex}{f'{number:x}' if number else ''}"


def row_id_of(item_id: str) -> uuid.UUID | None:
    """Return the generation or message that an item's id names, None for a text that can name none."""
    match = _ITEM.fullmatch(item_id)
    return uuid.UUID(match[1]) if match else None


def generation_id_of(text: str) -> uuid.UUID | None:
    """Return the generation that a response's id names, None for a text that can name none."""
    digits = text.removeprefix(RESPONSE_PREFIX)
    return uuid.UUID(digits) if text.startswith(RESPONSE_PREFIX) and _HEX.fullmatch(digits) else None
