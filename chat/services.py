"""Chat turns: from an authorised request to a stored, queued generation. The only way in for views, consumers,
commands and tasks."""

from dataclasses import dataclass
import uuid

from chat.callers import Caller
from chat.requests import ChatRequest, CompletionRequest
from inference.models import Generation


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A generation under way. ``needs_preparing``: ``prepare_turn`` has to be called before it can be queued."""

    generation_id: uuid.UUID
    conversation_id: uuid.UUID | None = None
    message_id: uuid.UUID | None = None
    needs_preparing: bool = False
    replayed: bool = False


def start_turn(
    *, caller: Caller, request: ChatRequest, idempotency_key: str | None = None, request_digest: str = ""
) -> Turn:
    """Store a turn and queue it, or (memories wanted) leave it ``preparing``. Refusals come before anything is stored."""
    raise NotImplementedError


def start_completion(
    *, caller: Caller, request: CompletionRequest, idempotency_key: str | None = None, request_digest: str = ""
) -> Turn:
    """Queue a raw prompt: no template, nothing kept beyond the answer."""
    raise NotImplementedError


def prepare_turn(*, generation_id: uuid.UUID) -> None:
    """Retrieve memories, render, queue. Safe to call twice or at the same time; blocks for at most RAG_TIMEOUT_SECS."""
    raise NotImplementedError


def cancel(*, caller: Caller, generation_id: uuid.UUID) -> Generation:
    """Stop a generation of the caller's. Raises NotFound, or Conflict (``already_ended``)."""
    raise NotImplementedError


def get_generation(*, caller: Caller, generation_id: uuid.UUID) -> Generation:
    """One generation of the caller's (message, conversation and retrieval loaded); raises NotFound."""
    raise NotImplementedError
