"""Deadlines while the wall clock jumps, forwards and backwards."""

from datetime import timedelta
from uuid import uuid4

import pytest
import time_machine
from django.utils import timezone

from inference.queue.deadlines import Deadlines, Row
from tests.clock import Clock

HOUR = timedelta(hours=1)


def row(timeout_secs: float = 60.0) -> Row:
    return uuid4(), timezone.now() + timedelta(seconds=timeout_secs), timeout_secs


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_of_the_clock_moves_no_deadline(jump: timedelta) -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    waiting = row()
    assert deadlines.overdue([waiting]) == []
    with time_machine.travel(timezone.now() + jump, tick=True):
        assert deadlines.overdue([waiting]) == []
        clock.now += 59.0
        assert deadlines.overdue([waiting]) == []
        clock.now += 1.1
        assert deadlines.overdue([waiting]) == [waiting[0]]


def test_a_clock_set_back_before_it_was_seen_gives_no_more_than_the_whole_time() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    waiting = row()
    with time_machine.travel(timezone.now() - HOUR, tick=True):
        deadline = deadlines.of(waiting)
    assert deadline is not None
    assert deadline <= clock.now + 60.0


def test_a_new_deadline_of_the_same_row_counts() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    waiting = row(10.0)
    first = deadlines.of(waiting)
    later = (waiting[0], timezone.now() + timedelta(seconds=100), 100.0)
    second = deadlines.of(later)
    assert first is not None
    assert second is not None
    assert second - first > 80


def test_a_row_without_a_deadline_has_none_and_ended_rows_are_forgotten() -> None:
    deadlines = Deadlines(Clock())
    endless: Row = (uuid4(), None, None)
    assert deadlines.of(endless) is None
    assert deadlines.overdue([endless, row(), row()]) == []
    assert len(deadlines._remembered) == 2
    deadlines.overdue([])
    assert deadlines._remembered == {}
