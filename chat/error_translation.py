"""Translate errors of ``inference`` and of the database into those of this package."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError

from chat.errors import ChatError, Conflict, TooManyRequests, Unavailable
from inference import errors as inference

_STATUS_CLASS: dict[type[inference.InferenceError], type[ChatError]] = {
    inference.QueueFull: Unavailable,
    inference.CallerLimit: TooManyRequests,
    inference.AdmissionRefused: Unavailable,
    inference.KeyReused: Conflict,
    inference.KeyTaken: Conflict,
    inference.AlreadyEnded: Conflict,
    inference.StoreUnavailable: Unavailable,
    inference.ModelUnavailable: Unavailable,
}


def translate(error: Exception) -> ChatError:
    """Return the error that the client gets for an error of any of the packages."""
    if isinstance(error, ChatError):
        return error
    if isinstance(error, OperationalError):
        return Unavailable("the database does not respond", code="store_unavailable", retry_after_secs=5)
    if isinstance(error, inference.InferenceError):
        kind_of_error = next((_STATUS_CLASS[kind] for kind in type(error).__mro__ if kind in _STATUS_CLASS), ChatError)
        return kind_of_error(str(error) or error.code, code=error.code, retry_after_secs=error.retry_after_secs)
    return ChatError("an internal error occurred and was logged")


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of lower layers as ChatError; programming errors pass unchanged."""
    try:
        yield
    except (inference.InferenceError, OperationalError) as error:
        raise translate(error) from error
