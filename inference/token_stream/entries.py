"""What a token log holds: the entries an owner appends and any number of readers follow.

``index`` counts the tokens of a generation from 1, whoever produces them; a status or end entry carries the
index of the last token before it (0 before the first).
"""

import msgspec


class LogEntry(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    index: int


class TokenEntry(LogEntry, frozen=True, tag="token", kw_only=True):
    token: int
    text: str = ""
    device: str = "cpu"


class StatusEntry(LogEntry, frozen=True, tag="status", kw_only=True):
    """Where the generation is when no token comes; states as in the wire format."""

    state: str  # queued | retrieving | waiting_for_gpu | loading | prefill | generating | yielding
    position: int | None = None
    progress: float | None = None
    reason: str | None = None


class EndEntry(LogEntry, frozen=True, tag="end", kw_only=True):
    """The last entry. ``text`` is what was held back until the end; the row has everything else."""

    status: str  # complete | interrupted | failed
    text: str = ""


AnyEntry = TokenEntry | StatusEntry | EndEntry
