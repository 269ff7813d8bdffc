"""Passages of messages: made of their texts, stored with their rows, read for a search.

Messages get rows once their conversation is near the limit of a prompt (``Conversation.n_indexed`` counts them); the
passages of others are made for the one search.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from chat.models import Conversation, Message, MessagePassage, Role
from chat.prompting.message_groups import DialogueMessage
from chat.rag.indexing.chunking import split
from chat.rag.passage_context import MAX_CONTEXT_CHARS
from chat.rag.words import index_form

# A user's message up to this length may be a reply that says little without the question before it.
SHORT_REPLY_CHARS = 60
N_FIRST = 3  # earliest passages that a question for the first ones means, and newest ones for the last


class IndexedPart(NamedTuple):
    """The columns of a ``MessagePassage`` by which a part of a message is found."""

    start: int
    end: int
    terms: str
    context_terms: str
    embedding: bytes = b""
    encoding: str = ""


class _PartsMade:
    """Parts by role, text and message before; index forms by text: an answer has its question's for its context."""

    def __init__(self) -> None:
        self.parts: dict[tuple[Role, str, str], list[IndexedPart]] = {}
        self.forms: dict[str, str] = {}

    def form(self, text: str) -> str:
        if text not in self.forms:
            self.forms[text] = index_form(text)
        return self.forms[text]


_made: ContextVar[_PartsMade | None] = ContextVar("parts made", default=None)


@dataclass(frozen=True, kw_only=True)
class SaidPassage:
    """A passage of a dialogue as it is searched."""

    position: int
    role: Role
    text: str
    said_at: datetime | None
    part: IndexedPart


def new_passages(messages: Sequence[Message], n_indexed: int) -> list[MessagePassage]:
    """Return unsaved rows for the messages from ``n_indexed`` on; those before give them their context."""
    rows: list[MessagePassage] = []
    for index in range(n_indexed, len(messages)):
        message = messages[index]
        before = messages[index - 1].text if index else ""
        parts = _parts_of(Role(message.role), message.text, before)
        rows += [MessagePassage(message=message, **part._asdict()) for part in parts]
    return rows


def copied_passages(source: Conversation, copies: Sequence[Message]) -> list[MessagePassage]:
    """Return unsaved passages for the ``copies`` of the first messages of ``source`` in a fork, vectors included."""
    parts = _stored(source, len(copies))
    return [MessagePassage(message=copy, **part._asdict()) for copy in copies for part in parts.get(copy.position, ())]


def said_passages(
    dialogue: Sequence[DialogueMessage], conversation: Conversation | None, n_stored: int
) -> list[SaidPassage]:
    """Return the passages of a dialogue in order. Its first ``n_stored`` messages are the first ones of
    ``conversation``, which holds their passages as far as they are indexed."""
    passages: list[SaidPassage] = []
    stored = _stored(conversation, min(n_stored, len(dialogue))) if conversation else {}
    before = ""
    for position, message in enumerate(dialogue):
        text = message.message.text if message.message else message.text
        said_at = message.message.created_at if message.message else None
        parts = stored.get(position)
        for part in _parts_of(message.role, text, before) if parts is None else parts:
            piece = text[part.start : part.end]
            passages.append(SaidPassage(position=position, role=message.role, text=piece, said_at=said_at, part=part))
        before = text
    return passages


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of the pieces of a text that are searched."""
    start = 0
    for piece in filter(None, split(text)):
        start = text.index(piece, start)
        yield start, start + len(piece)
        start += len(piece)


def context_of(role: Role, text: str, start: int, before: str) -> str:
    """Return what a passage that begins at ``start`` of ``text`` follows: the rest of the text before it, the question
    of an answer, the message that a short reply is to."""
    if start:
        return text[max(0, start - MAX_CONTEXT_CHARS) : start]
    is_reply = role == Role.ASSISTANT or len(text) <= SHORT_REPLY_CHARS
    return before[-MAX_CONTEXT_CHARS:] if is_reply else ""


@contextmanager
def parts_made_once() -> Iterator[None]:
    """Within the block the parts of a message are made once: a turn searches them, and stores them too."""
    token = _made.set(_PartsMade())
    try:
        yield
    finally:
        _made.reset(token)


def _parts_of(role: Role, text: str, before: str) -> list[IndexedPart]:
    made, key = _made.get() or _PartsMade(), (role, text, before)
    if key not in made.parts:
        made.parts[key] = [
            IndexedPart(start, end, made.form(text[start:end]), made.form(context_of(role, text, start, before)))
            for start, end in spans(text)
        ]
    return made.parts[key]


def _stored(conversation: Conversation, n_messages: int) -> dict[int, list[IndexedPart]]:
    """Return the parts of the first messages by position; an indexed message without words has an empty list."""
    n_indexed = min(n_messages, conversation.n_indexed)
    parts: dict[int, list[IndexedPart]] = {position: [] for position in range(n_indexed)}
    if not parts:
        return {}
    rows = MessagePassage.objects.filter(message__conversation=conversation, message__position__lt=n_indexed)
    for position, *values in rows.order_by("message__position", "start").values_list(
        "message__position", *IndexedPart._fields
    ):
        parts[position].append(IndexedPart(*values))
    return parts
