"""What a token log holds: the entries an owner appends and any number of readers follow.

``index`` counts the tokens of a generation from 1, whoever produces them; a status or end entry carries the
index of the last token before it (0 before the first).
"""

import msgspec

from inference.enums import StreamState


class LogEntry(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    index: int


class TokenEntry(LogEntry, frozen=True, tag="token", kw_only=True):
    token: int
    text: str = ""
    device: str = "cpu"


class StatusEntry(LogEntry, frozen=True, tag="status", kw_only=True):
    """The state of the generation between two tokens."""

    state: StreamState
    position: int | None = None
    progress: float | None = None
    reason: str | None = None


class EndEntry(LogEntry, frozen=True, tag="end", kw_only=True):
    """The last entry. ``text`` is what was held back until the end; the row has everything else."""

    status: str  # complete | interrupted | failed
    text: str = ""


AnyEntry = TokenEntry | StatusEntry | EndEntry
