"""The threads that repeat a unit of work: they survive its errors and end when they are stopped."""

import threading

import pytest
from django.db import OperationalError

from inference.errors import StoreUnavailable
from inference.runtime.repeating_thread import RepeatingThread


@pytest.mark.parametrize(
    "error", [OperationalError("locked"), StoreUnavailable("away"), OSError(), ZeroDivisionError()]
)
def test_a_unit_that_fails_is_done_again(error: Exception) -> None:
    calls = 0
    recovered = threading.Event()

    def unit() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise error
        recovered.set()

    loop = RepeatingThread("test", 0.01, unit)
    loop.begin()
    assert recovered.wait(10)
    loop.end(10)


def test_the_first_unit_is_done_at_once_and_none_after_the_end() -> None:
    first = threading.Event()
    calls: list[int] = []

    def unit() -> None:
        calls.append(1)
        first.set()

    loop = RepeatingThread("test", 3600.0, unit)
    loop.begin()
    assert first.wait(10)
    loop.end(10)
    assert calls == [1]


def test_a_loop_that_never_began_can_be_ended() -> None:
    RepeatingThread("test", 1.0, lambda: None).end(1.0)
