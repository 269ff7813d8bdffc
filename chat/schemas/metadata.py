"""Free JSON objects that clients attach to what they store: which ones every database can keep."""

import json
from collections.abc import Mapping

from chat.rag.limits import MAX_METADATA_CHARS, MAX_METADATA_DEPTH
from chat.schemas.decoding import FieldError

UNSTORABLE = "holds numbers or characters that cannot be stored, or is nested too deeply"


def check_metadata(field: str, value: Mapping[str, object]) -> None:
    """Raises FieldError when ``value`` cannot be stored or is too large."""
    if not is_storable(value):
        raise FieldError(field, UNSTORABLE)
    if len(json.dumps(value, ensure_ascii=False)) > MAX_METADATA_CHARS:
        raise FieldError(field, f"must have at most {MAX_METADATA_CHARS} characters as JSON")


def is_storable(value: object, depth: int = MAX_METADATA_DEPTH) -> bool:
    """Return whether a JSON value has finite numbers, whole characters and at most ``depth`` levels."""
    if depth < 0:
        return False
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int | float):
        return abs(value) < 1e300
    if isinstance(value, Mapping):
        return all(is_storable(part, depth - 1) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(is_storable(part, depth - 1) for part in value)
    return value is None
