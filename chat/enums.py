"""Closed sets of values that are stored, sent and received alike."""

from enum import StrEnum


class ChatRole(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Strategy(StrEnum):
    """What to do with a history that does not fit into the context."""

    SUMMARIZE = "summarize"  # oldest turns give way to a summary; until there is one they are left out
    TRUNCATE = "truncate"  # oldest turns are left out
    ERROR = "error"  # 413
