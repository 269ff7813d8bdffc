"""Constrained scalar types that several bodies share."""

from typing import Annotated

from msgspec import Meta

# No database keeps NUL or half a surrogate pair. In JSON Schema the surrogates are left out of the pattern: without
# a flag that schemas cannot set, it would refuse every character beyond U+FFFF.
_STORABLE = Meta(pattern="^[^\0\ud800-\udfff]*\\Z", extra_json_schema={"pattern": "^[^\\u0000]*$"})

Text = Annotated[str, _STORABLE]
NonEmptyText = Annotated[Text, Meta(min_length=1)]

MAX_NUMBER = 1e300  # beyond it a number of JSON may be no finite float
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
