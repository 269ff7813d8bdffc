"""Entries of a token log: appended by the owner of a claim, followed by any number of readers.

``index`` counts the tokens of a generation from 1, across its claims; a status or end entry carries the index of the
last token before it (0 before the first).
"""

import msgspec

from inference.engine.sampling.logprob_records import TokenLogprobs
from inference.enums import StreamState


class LogEntry(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    index: int


class TokenEntry(LogEntry, frozen=True, tag="token", kw_only=True):
    token: int
    text: str = ""
    thought: str = ""  # text that is no part of the answer
    device: str = "cpu"
    logprobs: TokenLogprobs | None = None  # of sequences with ``n_logprobs``


class PromptTokens(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of a prompt that is being computed: done so far (reused ones included), all of them, and reused."""

    n_done: int
    n_total: int
    n_cached: int


class StatusEntry(LogEntry, frozen=True, tag="status", kw_only=True):
    """The generation's state while no token is emitted."""

    state: StreamState
    position: int | None = None
    progress: float | None = None
    reason: str | None = None
    prompt: PromptTokens | None = None


class EndEntry(LogEntry, frozen=True, tag="end", kw_only=True):
    """The last entry. ``text`` and ``thought`` were held back until the end; the row has everything else."""

    status: str  # complete | interrupted | failed
    text: str = ""
    thought: str = ""


AnyEntry = TokenEntry | StatusEntry | EndEntry
