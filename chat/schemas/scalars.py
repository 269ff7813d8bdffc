"""Constrained scalar types that several bodies share."""

from typing import Annotated

from msgspec import Meta

# No database stores NUL or half a surrogate pair.
STORABLE_PATTERN = "^[^\0\ud800-\udfff]*\\Z"
# The same for JSON Schema, without the surrogates: it has no flag for Unicode, so that they would exclude every
# character beyond U+FFFF.
PUBLIC_PATTERN = "^[^\\u0000]*$"
# A count as text: -1, digits, or nothing.
COUNT_PATTERN = "^(-1|[0-9]{0,18})\\Z"

Text = Annotated[str, Meta(pattern=STORABLE_PATTERN)]
NonEmptyText = Annotated[Text, Meta(min_length=1)]

RecallChoice = Annotated[
    bool, Meta(description="With `summarize`: messages that no longer fit are searched with each question.")
]

MAX_NUMBER = 1e300  # beyond it a number of JSON may be no finite float
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
