"""The translation of foreign errors for clients: none is missed, none reveals internals."""

from collections.abc import Iterator

import pytest
from django.db import OperationalError

from chat import errors
from chat.error_translation import translate, translated
from chat.errors import ChatError, Conflict, TooManyRequests, Unavailable
from inference import errors as inference


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


# A refused token is the interface's business: it is answered before a service of ours is called. That another process
# has the GPU, or that its driver says nothing, stays within the worker: answers go on on the CPU.
ELSEWHERE = (inference.ServiceTokenRefused, inference.GpuBusy, inference.GpuUnavailable)
INFERENCE = [
    kind
    for kind in subclasses(inference.InferenceError)
    if kind.__module__ == inference.__name__ and kind not in ELSEWHERE
]
CHAT = [kind for kind in subclasses(ChatError) if kind.__module__ == errors.__name__]


def made(kind: type[Exception]) -> Exception:
    if kind in (inference.QueueFull, inference.CallerLimit):
        return kind(7, 12)
    return kind("what happened")


@pytest.mark.parametrize("kind", INFERENCE)
def test_every_error_of_inference_has_a_status_of_its_own(kind: type[Exception]) -> None:
    error = made(kind)
    translated_error = translate(error)
    assert translated_error.status in (409, 429, 503), "an error that nobody thought of became a 500"
    assert translated_error.code == error.code  # type: ignore[attr-defined]
    assert translated_error.message == str(error)


@pytest.mark.parametrize(
    ("error", "kind", "retry_after_secs"),
    [
        (inference.QueueFull(300, 17), Unavailable, 17),
        (inference.CallerLimit(64, 9), TooManyRequests, 9),
        (inference.StoreUnavailable("away"), Unavailable, 5),
        (inference.ModelUnavailable("missing"), Unavailable, 30),
        (inference.AlreadyEnded("over"), Conflict, None),
        (OperationalError("database is locked"), Unavailable, 5),
    ],
)
def test_when_to_come_again(error: Exception, kind: type[ChatError], retry_after_secs: int | None) -> None:
    translated_error = translate(error)
    assert type(translated_error) is kind
    assert translated_error.retry_after_secs == retry_after_secs


def test_a_database_error_does_not_show_its_text() -> None:
    assert "gemma.sqlite3" not in translate(OperationalError("unable to open /data/gemma.sqlite3")).message


def test_an_unknown_error_does_not_show_its_text() -> None:
    translated_error = translate(RuntimeError("secret detail"))
    assert (translated_error.status, translated_error.code) == (500, "internal_error")
    assert "secret" not in translated_error.message


def test_our_own_pass_as_they_are() -> None:
    error = errors.NotFound("no such thing", field="id")
    assert translate(error) is error


def test_bugs_pass_the_border_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        _ = 1 / 0


@pytest.mark.parametrize("kind", CHAT)
def test_each_class_has_a_code_a_status_and_a_sentence(kind: type[ChatError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.code.islower()
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or "")
