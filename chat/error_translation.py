"""The border where errors of ``inference`` and of the database become this package's own."""

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
    """The client's view of an error of ours, of ``inference`` or of the database."""
    if isinstance(error, ChatError):
        return error
    if isinstance(error, OperationalError):
        return Unavailable("the database does not answer", code="store_unavailable", retry_after_secs=5)
    if isinstance(error, inference.InferenceError):
        known = next((_STATUS_CLASS[kind] for kind in type(error).__mro__ if kind in _STATUS_CLASS), ChatError)
        return known(str(error) or error.code, code=error.code, retry_after_secs=error.retry_after_secs)
    return ChatError("something went wrong here; it was logged")


@contextmanager
def translated() -> Iterator[None]:
    """The border: what a service lets out is a ChatError. Bugs pass through as they are."""
    try:
        yield
    except (inference.InferenceError, OperationalError) as error:
        raise translate(error) from error
