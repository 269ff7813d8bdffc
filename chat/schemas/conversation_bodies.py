"""A stored conversation as clients see it, and the fields that they may set."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import msgspec
from django.utils import timezone
from msgspec import Meta

from chat.enums import Strategy, TitleSource
from chat.models import Conversation
from chat.schemas.decoding import decode
from chat.schemas.scalars import RecallChoice, Text

MAX_SYSTEM_PROMPT_CHARS = 100_000


class ConversationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation without its messages.

    Conversations of one ``family`` are versions of each other: each shares its first ``forked_at`` messages with
    ``forked_from``. All three are null where there is no other version.
    """

    id: UUID
    title: Annotated[
        str,
        Meta(
            description="Set by a client, or the first words of the first question; for conversations whose first turn "
            "had `auto_title` the model replaces those words after the first answer. `title_source` says which it is."
        ),
    ]
    title_source: TitleSource
    summary: str
    system_prompt: str
    strategy: Strategy
    keep: bool
    archived: bool
    recall: bool
    family: UUID | None
    forked_from: UUID | None
    forked_at: int | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        return cls(
            id=conversation.pk,
            title=conversation.title,
            title_source=TitleSource(conversation.title_source),
            summary=conversation.summary,
            system_prompt=conversation.system_prompt,
            strategy=Strategy(conversation.strategy),
            keep=conversation.keep,
            archived=conversation.archived,
            recall=conversation.recall,
            family=conversation.family,
            forked_from=conversation.forked_from_id,
            forked_at=conversation.forked_at,
            created_at=timezone.localtime(conversation.created_at),
            updated_at=timezone.localtime(conversation.updated_at),
        )


class ConversationBody(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that a client may set. ``keep``: not deleted for its age, whatever RETENTION_DAYS is.

    ``archived``: only in lists that ask for archived conversations; a new turn takes it back. The model never replaces
    a ``title`` that was set; an empty one sets none."""

    title: Annotated[Text, Meta(max_length=200)] | None = None
    system_prompt: Annotated[Text, Meta(max_length=MAX_SYSTEM_PROMPT_CHARS)] | None = None
    strategy: Strategy | None = None
    keep: bool | None = None
    archived: bool | None = None
    recall: RecallChoice | None = None


def conversation_changes(data: object) -> dict[str, Any]:
    """Return the fields that were sent. Raises InvalidRequest."""
    body = decode(ConversationBody, data)
    return {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
