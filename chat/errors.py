"""What can go wrong with a request, as clients are told.

ChatError
|- InvalidRequest       400  a field, or fields that contradict each other
|- NotFound             404  no such thing among the caller's own
|- Conflict             409
|  |- ConversationBusy       its last answer is not finished
|- ContextOverflow      413  does not fit into the model's context
|- TooManyRequests      429  a caller's own limit
|- Unavailable          503  the queue is full or a dependency is gone
"""

from typing import Any


class ChatError(Exception):
    """Base of this package's errors: ``code`` is what programs compare, ``status`` the HTTP number."""

    code = "internal_error"
    status = 500

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        extra: dict[str, Any] | None = None,
        retry_after_secs: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.field = field
        self.extra = extra or {}
        self.retry_after_secs = retry_after_secs

    @property
    def message(self) -> str:
        return str(self)


class InvalidRequest(ChatError):
    """The request cannot be meant as it was sent; ``field`` says where."""

    code = "invalid_request"
    status = 400


class NotFound(ChatError):
    """Nothing of that id belongs to the caller; whether it belongs to somebody else is not said."""

    code = "not_found"
    status = 404


class Conflict(ChatError):
    """The request was fine, the state of things is against it."""

    code = "conflict"
    status = 409


class ConversationBusy(Conflict):
    """A conversation takes one turn at a time."""

    code = "conversation_busy"


class ContextOverflow(ChatError):
    """More tokens than the context has."""

    code = "context_overflow"
    status = 413

    def __init__(self, *, prompt_tokens: int, context_size: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, the context {context_size}",
            field="messages",
            extra={"prompt_tokens": prompt_tokens, "context_size": context_size},
        )


class TooManyRequests(ChatError):
    """The caller has too much under way."""

    code = "caller_limit"
    status = 429


class Unavailable(ChatError):
    """Not now: try again after ``retry_after_secs``."""

    code = "unavailable"
    status = 503
