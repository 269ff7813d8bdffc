"""A caller has a bounded number of sockets, and a closed one gives its place back."""

from contextlib import ExitStack

import pytest

from chat.access.callers import Caller
from chat.errors import TooManyRequests
from chat.streaming.open_sockets import MAX_SOCKETS, OpenSockets

ANN, BOB = Caller("user:1"), Caller("user:2")


def test_the_places_of_one_caller_are_not_those_of_another() -> None:
    sockets = OpenSockets()
    with ExitStack() as open_ones:
        for _ in range(MAX_SOCKETS):
            open_ones.enter_context(sockets.counted(ANN))
        with pytest.raises(TooManyRequests) as raised, sockets.counted(ANN):
            pass
        assert raised.value.code == "socket_limit"
        with sockets.counted(BOB):
            pass
    with sockets.counted(ANN):
        pass
    assert sockets._counts == {}


def test_a_refused_socket_takes_no_place() -> None:
    sockets = OpenSockets()
    with ExitStack() as open_ones:
        for _ in range(MAX_SOCKETS):
            open_ones.enter_context(sockets.counted(ANN))
        for _ in range(3):
            with pytest.raises(TooManyRequests), sockets.counted(ANN):
                pass
    assert sockets._counts == {}
