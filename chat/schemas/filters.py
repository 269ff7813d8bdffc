"""Sizes and filters of lists and searches as clients write them: clamped or ignored where the meaning is clear.

A number is also taken as a text of digits, as forms and sliders send it.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta

from chat.rag.query import SourceFilters
from chat.schemas.scalars import COUNT_PATTERN, Text

MAX_TOP_K = 100
MAX_TRANSCRIPTS = 100_000
MAX_INTEGER = 2**63 - 1
AS_MANY_AS_ALLOWED = -1

Integer = Annotated[int, Meta(ge=AS_MANY_AS_ALLOWED, le=MAX_INTEGER)]
Digits = Annotated[str, Meta(pattern=COUNT_PATTERN)]
Count = Integer | Digits
TopK = Annotated[
    Count, Meta(description=f"0: the default; -1: as many as allowed. More than {MAX_TOP_K} count as {MAX_TOP_K}.")
]
TranscriptCount = Annotated[Count, Meta(description="Only the newest so many transcripts; 0 and -1: all.")]
Name = Annotated[Text, Meta(max_length=200)]
Emotion = Annotated[Text, Meta(max_length=100)]
Names = Annotated[
    Name | Annotated[list[Name], Meta(max_length=100)], Meta(description="One or several; empty ones do not count.")
]
Emotions = Annotated[
    Emotion | Annotated[list[Emotion], Meta(max_length=100)],
    Meta(description="One or several; empty ones do not count."),
]


def clamped(value: int | str | None, default: int, largest: int) -> int:
    """Return a size: the default for 0 and nothing, ``largest`` for -1 and all above."""
    number = int(value or 0)
    if number == 0:
        return default
    return largest if number == AS_MANY_AS_ALLOWED else min(number, largest)


def names_in(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of a filter, without empty ones."""
    names = (value,) if isinstance(value, str) else tuple(value or ())
    return tuple(name for name in names if name.strip())


def source_filters(body: Any) -> SourceFilters:  # noqa: ANN401  structs cannot share the fields by a second base
    """Return the filters of a body that has their five fields."""
    n_transcripts = int(body.last_n_transcripts or 0)
    return SourceFilters(
        speakers=names_in(body.speakers),
        start_date=body.start_date or None,
        end_date=body.end_date or None,
        last_n_transcripts=min(n_transcripts, MAX_TRANSCRIPTS) if n_transcripts > 0 else None,
        bias_emotions=names_in(body.bias_emotions),
    )
