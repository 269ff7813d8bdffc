"""The drawn moves between the stages of a stay on the card: every legal one, and every other one refused."""

from itertools import product

import pytest

from inference.dispatch.gpu_state import (
    ACCEPTS_WORK,
    TRANSITIONS,
    WITH_LEASE,
    GpuState,
    GpuStateMachine,
    IllegalTransition,
)

# Written down once more, so that a change of the table has to be meant.
DRAWN = {
    ("cpu", "waiting"),
    ("waiting", "loading"),
    ("waiting", "cpu"),
    ("loading", "moving"),
    ("loading", "leaving"),
    ("moving", "gpu"),
    ("moving", "yielding"),
    ("moving", "leaving"),
    ("gpu", "yielding"),
    ("gpu", "leaving"),
    ("yielding", "leaving"),
    ("leaving", "cpu"),
}


def at(stage: GpuState) -> GpuStateMachine:
    stages = GpuStateMachine()
    stages.now = stage
    return stages


@pytest.mark.parametrize(("here", "there"), list(product(GpuState, GpuState)))
def test_a_move_is_made_when_it_is_drawn_and_refused_when_not(here: GpuState, there: GpuState) -> None:
    stages = at(here)
    if (here.value, there.value) in DRAWN:
        stages.move(there, 7.0)
        assert (stages.now, stages.since) == (there, 7.0)
        return
    with pytest.raises(IllegalTransition, match=f"from {here} to .*, got {there}"):
        stages.move(there, 7.0)
    assert stages.now is here


def test_every_stage_has_a_way_on_and_can_be_come_to() -> None:
    assert set(TRANSITIONS) == set(GpuState)
    assert {there for targets in TRANSITIONS.values() for there in targets} == set(GpuState)


def test_whoever_takes_work_has_the_lease_and_it_is_not_lost_on_the_way() -> None:
    assert set(ACCEPTS_WORK) <= set(WITH_LEASE)
    # With the lease one comes only by a grant, and loses it only at the end of LEAVING.
    assert {
        here for here, targets in TRANSITIONS.items() if here not in WITH_LEASE and set(targets) & set(WITH_LEASE)
    } == {GpuState.WAITING}
    assert {here for here, targets in TRANSITIONS.items() if here in WITH_LEASE and set(targets) - set(WITH_LEASE)} == {
        GpuState.LEAVING
    }
