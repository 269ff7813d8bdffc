"""Closed sets of values that are stored, sent and received alike."""

from enum import StrEnum


class ChatRole(StrEnum):
    """The roles that a prompt is made of."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class MessageRole(StrEnum):
    """The roles that clients send."""

    SYSTEM = "system"
    DEVELOPER = "developer"  # the same as system
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"  # the result of a tool, shown to the model as a user's message


class Strategy(StrEnum):
    """The treatment of a history that does not fit into the context."""

    SUMMARIZE = "summarize"  # oldest turns give way to a summary; until there is one they are left out
    TRUNCATE = "truncate"  # oldest turns are left out
    ERROR = "error"  # 413


class TitleSource(StrEnum):
    """The origin of a conversation's title."""

    WORDS = "words"  # the first words of the first question
    AWAITED = "awaited"  # the same, until the model has made a title
    MODEL = "model"
    USER = "user"  # set by a person, and never replaced


class Effort(StrEnum):
    """The amount of thought before an answer, for models that think."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    ON = "on"  # whatever the model takes


class KeyScope(StrEnum):
    """The permissions of an API key, within those of its user."""

    CHAT = "chat"  # answers and conversations; an answer may search the user's memories
    MEMORIES = "memories"  # search, add and delete memories
    READ = "read"  # read conversations and memories, change nothing
    OPERATE = "operate"  # keys of staff: where the model runs, and who has the GPU


class KeyState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
