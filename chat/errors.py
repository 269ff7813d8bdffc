"""Errors that clients can receive, one class per reason.

ChatError
|- InvalidRequest            400  a field is wrong, or two fields contradict each other
|  |- InvalidJson            400  the body is not JSON, or is nested too deeply
|  |- InvalidEncoding        400  the body is not UTF-8
|- Unauthorized              401  credentials are missing or wrong
|- Forbidden                 403  credentials do not suffice, a foreign origin, a missing CSRF token
|- NotFound                  404  the caller owns no such object
|- MethodNotAllowed          405
|- Conflict                  409
|  |- ConversationBusy       409  the conversation's last answer is not finished
|- BodyTooLarge              413
|- ContextOverflow           413  the prompt does not fit into the model's context
|- UnsupportedMediaType      415
|- TooManyRequests           429  a limit of this caller
|- NotServed                 501  a route that other services have, and this one has not
|- Unavailable               503  the queue is full or a dependency is away
"""

from typing import Any

MAX_QUOTED_CHARS = 100


def quoted(value: object) -> str:
    """Return a value of the request as an error may show it: in quotes, cut to MAX_QUOTED_CHARS."""
    # Cut before repr, which may quadruple what is not printable, and after it.
    text = repr(value[:MAX_QUOTED_CHARS] if isinstance(value, str) else value)
    is_cut = len(text) > MAX_QUOTED_CHARS or (isinstance(value, str) and len(value) > MAX_QUOTED_CHARS)
    return f"{text[: MAX_QUOTED_CHARS - 1]}…" if is_cut else text


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
    """The request is not valid; ``field`` is the path of the wrong field."""

    code = "invalid_request"
    status = 400


class NotFound(ChatError):
    """The caller owns nothing of that id; another owner's is reported the same way."""

    code = "not_found"
    status = 404


class Conflict(ChatError):
    """The request is valid, but not in the present state."""

    code = "conflict"
    status = 409


class ConversationBusy(Conflict):
    """A conversation takes one turn at a time."""

    code = "conversation_busy"


class ContextOverflow(ChatError):
    """More tokens than the context has."""

    code = "context_overflow"
    status = 413

    def __init__(
        self, *, prompt_tokens: int, context_size: int, is_exact: bool = True, field: str = "messages"
    ) -> None:
        """``is_exact``: False for a long prompt that was not counted to its end, and has at least so many tokens."""
        bound = "" if is_exact else "at least "
        super().__init__(
            f"the prompt has {bound}{prompt_tokens} tokens, the context {context_size}",
            field=field,
            extra={"prompt_tokens": prompt_tokens, "context_size": context_size},
        )


class TooManyRequests(ChatError):
    """The caller has too much under way."""

    code = "caller_limit"
    status = 429


class NotServed(ChatError):
    """Other services compute this; the text names the way to get it here."""

    code = "not_served"
    status = 501


class Unavailable(ChatError):
    """The service cannot do this now; the client may try again after ``retry_after_secs``."""

    code = "unavailable"
    status = 503


class InvalidJson(InvalidRequest):
    """The body is not JSON, or is nested too deeply."""

    code = "invalid_json"


class InvalidEncoding(InvalidRequest):
    """The body is not UTF-8."""

    code = "invalid_encoding"


class Unauthorized(ChatError):
    """Credentials are missing or wrong."""

    code = "not_authenticated"
    status = 401


class Forbidden(ChatError):
    """Credentials do not suffice, the origin is foreign, or the CSRF token is missing."""

    code = "forbidden"
    status = 403


class MethodNotAllowed(ChatError):
    """The path serves other methods."""

    code = "method_not_allowed"
    status = 405


class BodyTooLarge(ChatError):
    """The body is larger than its path allows."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(ChatError):
    """The body is of a type or encoding that is not read."""

    code = "unsupported_media_type"
    status = 415
