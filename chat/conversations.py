"""Stored conversations of a caller: list, create, change, delete, export."""

from typing import Any
import uuid

from chat.callers import Caller
from chat.models import Conversation
from chat.querysets import ConversationQuerySet


def conversations_of(caller: Caller) -> ConversationQuerySet:
    raise NotImplementedError


def get_conversation(*, caller: Caller, conversation_id: uuid.UUID) -> Conversation:
    """Raises NotFound also for another owner's."""
    raise NotImplementedError


def create_conversation(*, caller: Caller, title: str = "", system_prompt: str = "") -> Conversation:
    raise NotImplementedError


def update_conversation(
    *, caller: Caller, conversation_id: uuid.UUID, title: str | None = None, system_prompt: str | None = None
) -> Conversation:
    """Change what is not None."""
    raise NotImplementedError


def delete_conversation(*, caller: Caller, conversation_id: uuid.UUID) -> None:
    """Cancels what is under way; messages, sources and generations go too."""
    raise NotImplementedError


def export_conversation(*, caller: Caller, conversation_id: uuid.UUID) -> dict[str, Any]:
    raise NotImplementedError


def export_markdown(*, caller: Caller, conversation_id: uuid.UUID) -> str:
    raise NotImplementedError
