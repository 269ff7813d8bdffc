"""The block of recalled messages before the newest question: chosen within a number of tokens, word for word, marked as
said earlier.

It is written as the user would: a small model that follows instructions uses lines of "what I told you", and takes a
record of a conversation for something to comment on. Knows neither search nor database; counts tokens with a function
of its caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chat.local_time import moment_text
from chat.models import Role
from chat.prompting.source_block import FENCE, quoted
from chat.prompting.text_splitter import CountTokens, beginning

HEADS = {
    Role.USER: "I told you earlier in this conversation (where two lines differ, the later one counts):",
    Role.ASSISTANT: "You told me earlier in this conversation:",
}
# A base model continues a transcript.
PLAIN_HEAD = "Said earlier in this conversation:"
SPEAKERS = {Role.USER: "User", Role.ASSISTANT: "Assistant"}
# A shorter beginning of a passage is not useful.
MIN_CUT_TOKENS = 32
MAX_RECALLED = 24


@dataclass(frozen=True, kw_only=True)
class RecalledPassage:
    """A passage of an earlier message. ``position``: of the message; ``similarity`` and ``words``: the parts of the
    score, None for a search that did not find it."""

    position: int
    role: Role
    text: str
    said_at: datetime | None
    score: float
    similarity: float | None = None
    words: float | None = None

    def note(self) -> dict[str, Any]:
        """Describe the passage in ``usage.history``; the text itself is in its message."""
        return {
            "position": self.position,
            "role": self.role.value,
            "said_at": self.said_at.isoformat() if self.said_at else None,
            "score": round(self.score, 4),
            "similarity": None if self.similarity is None else round(self.similarity, 4),
            "words": None if self.words is None else round(self.words, 4),
        }


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Passages found for a question, best first; ``problem`` describes a limited search. ``names_times``: the question
    is about the time of messages."""

    passages: tuple[RecalledPassage, ...] = ()
    problem: str = ""
    names_times: bool = False


# Searches so many messages, from the first on, for what the newest question needs.
Recaller = Callable[[int], Recall]


@dataclass(frozen=True, kw_only=True)
class RecallForm:
    """Form of a block: for a base model or one that follows instructions, with the times of messages or not."""

    plain_model: bool
    has_times: bool = False

    def block(self, passages: Sequence[RecalledPassage]) -> str:
        if self.plain_model:
            return "\n".join([PLAIN_HEAD, FENCE, *map(self.entry, passages), FENCE])
        lines: list[str] = []
        for role, head in HEADS.items():
            entries = [self.entry(passage) for passage in passages if passage.role == role]
            lines += [head, *entries] if entries else []
        return "\n".join(lines)

    def entry(self, passage: RecalledPassage) -> str:
        when = moment_text(passage.said_at) if passage.said_at and (self.has_times or self.plain_model) else ""
        if self.plain_model:
            when = f"{SPEAKERS[passage.role]} ({when})" if when else SPEAKERS[passage.role]
        return quoted(": ".join(filter(None, [when, passage.text.strip()])))

    @property
    def frame(self) -> str:
        """The text of a block beside its entries, at most."""
        return "\n".join([PLAIN_HEAD, FENCE, FENCE] if self.plain_model else HEADS.values())


def choose_recalled(
    passages: Sequence[RecalledPassage], *, budget: int, count: CountTokens, form: RecallForm
) -> tuple[RecalledPassage, ...]:
    """Choose the best passages whose block fits into ``budget`` tokens, in the order in which they are shown: those of
    the user first, each group from the oldest on."""
    left = budget - count(form.frame) - 2
    chosen: list[RecalledPassage] = []
    for passage in passages:
        if len(chosen) == MAX_RECALLED or left < MIN_CUT_TOKENS:
            break
        n_tokens = count(form.entry(passage)) + 1
        if n_tokens > left:
            n_heading = count(form.entry(replace(passage, text="x")))
            passage = replace(passage, text=beginning(passage.text, left - n_heading, count))
            n_tokens = count(form.entry(passage)) + 1
            if not passage.text or n_tokens > left:
                continue
        chosen.append(passage)
        left -= n_tokens
    return tuple(sorted(chosen, key=lambda passage: (passage.role != Role.USER, passage.position)))
