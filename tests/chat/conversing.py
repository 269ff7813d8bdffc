"""Chatting in tests: ask, let the answer end as a worker would leave it, look at the rows."""

from typing import Any
from uuid import UUID

from django.utils import timezone

from chat.access.callers import Caller
from chat.enums import ChatRole
from chat.models import Message
from chat.prompting.chat_templates import get_format
from chat.schemas.requests import ChatMessage, ChatRequest
from chat.services import turns
from chat.services.turns import Turn
from inference.models import Generation, Status
from inference.text_forms import answer_digest, folded
from inference.token_ids import pack

ANN, BOB = Caller("user:1"), Caller("user:2")
ROLES = {"s": ChatRole.SYSTEM, "u": ChatRole.USER, "a": ChatRole.ASSISTANT}


def messages(*texts: str) -> tuple[ChatMessage, ...]:
    """``messages("s:be kind", "u:hello")``"""
    return tuple(ChatMessage(ROLES[text[0]], text[2:]) for text in texts)


def chat(*texts: str, caller: Caller = ANN, key: str | None = None, **fields: Any) -> Turn:  # noqa: ANN401
    """Start a turn with these messages, or with ``message="..."`` and ``conversation_id``."""
    request = ChatRequest(messages=messages(*texts), **fields)
    return turns.start_turn(caller=caller, request=request, idempotency_key=key)


def more(turn: Turn, text: str, **fields: Any) -> Turn:  # noqa: ANN401
    """The next turn of the same conversation."""
    return chat(conversation_id=turn.conversation_id, message=text, **fields)


def finish(
    turn: Turn,
    text: str = "Fine.",
    *,
    output: list[int] | None = None,
    status: Status = Status.COMPLETE,
    finish_reason: str = "stop",
    **columns: Any,  # noqa: ANN401
) -> list[int]:
    """The answer as a worker leaves it; returns its tokens."""
    ids = get_format().answer(text) if output is None else output
    changed = Generation.objects.filter(pk=turn.generation_id).update(
        status=status,
        text=text,
        text_folded=folded(text),
        text_digest=answer_digest(text),
        output=pack(ids),
        prompt=b"",
        n_completion_tokens=len(ids),
        finish_reason=finish_reason,
        finished_at=timezone.now(),
        **columns,
    )
    assert changed == 1
    return ids


def generation_of(turn: Turn) -> Generation:
    return Generation.objects.get(pk=turn.generation_id)


def prompt_of(turn: Turn) -> list[int]:
    generation = generation_of(turn)
    assert generation.status == Status.QUEUED
    return generation.prompt_ids


def texts_of(conversation_id: UUID | None) -> list[tuple[str, str]]:
    rows = Message.objects.filter(conversation__pk__in=[conversation_id]).in_order()
    return [(row.role, row.text) for row in rows]
