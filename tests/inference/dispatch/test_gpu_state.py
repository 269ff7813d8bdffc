"""The drawn moves between the stages of a stay on the card: every legal one, and every other one refused."""

from itertools import product

import pytest

from inference.dispatch.gpu_state import MOVES, TAKES_WORK, WITH_LEASE, IllegalMove, Stage, Stages

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


def at(stage: Stage) -> Stages:
    stages = Stages()
    stages.now = stage
    return stages


@pytest.mark.parametrize(("here", "there"), list(product(Stage, Stage)))
def test_a_move_is_made_when_it_is_drawn_and_refused_when_not(here: Stage, there: Stage) -> None:
    stages = at(here)
    if (here.value, there.value) in DRAWN:
        stages.move(there, 7.0)
        assert (stages.now, stages.since) == (there, 7.0)
        return
    with pytest.raises(IllegalMove, match=f"from {here} to .*, got {there}"):
        stages.move(there, 7.0)
    assert stages.now is here


def test_every_stage_has_a_way_on_and_can_be_come_to() -> None:
    assert set(MOVES) == set(Stage)
    assert {there for targets in MOVES.values() for there in targets} == set(Stage)


def test_whoever_takes_work_has_the_lease_and_it_is_not_lost_on_the_way() -> None:
    assert set(TAKES_WORK) <= set(WITH_LEASE)
    # With the lease one comes only by a grant, and loses it only at the end of LEAVING.
    assert {here for here, targets in MOVES.items() if here not in WITH_LEASE and set(targets) & set(WITH_LEASE)} == {
        Stage.WAITING
    }
    assert {here for here, targets in MOVES.items() if here in WITH_LEASE and set(targets) - set(WITH_LEASE)} == {
        Stage.LEAVING
    }
