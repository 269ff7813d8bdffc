"""Ids as clients write them."""

import uuid

from chat.errors import NotFound


def as_uuid(text: str) -> uuid.UUID | None:
    """Return the UUID written in the one form that this service gives out, or None."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    # uuid.UUID also takes braces, urn:uuid: and missing hyphens.
    return value if str(value) == text.lower() else None


def existing_id(text: str | None, *, field: str, noun: str) -> uuid.UUID | None:
    """Return the id of something stored, None for none. Raises NotFound for a text that can name nothing."""
    # Forms without JavaScript send an empty text for a field that is not filled in.
    if not text:
        return None
    value = as_uuid(text)
    if value is None:
        raise NotFound(f"there is no such {noun}", field=field)
    return value
