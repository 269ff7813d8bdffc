"""The transitions between the GPU states: every drawn one is legal, every other one is refused."""

from itertools import product

import pytest

from inference.dispatch.gpu_state import ACCEPTS_WORK, TRANSITIONS, WITH_LEASE, GpuState, gpu_state_machine
from inference.runtime.state_machine import IllegalTransition, StateMachine

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


def machine_in(state: GpuState) -> StateMachine[GpuState]:
    machine = gpu_state_machine()
    machine.now = state
    return machine


@pytest.mark.parametrize(("source", "target"), list(product(GpuState, GpuState)))
def test_a_drawn_transition_is_legal_and_every_other_one_is_refused(source: GpuState, target: GpuState) -> None:
    machine = machine_in(source)
    if (source.value, target.value) in DRAWN:
        machine.move(target, 7.0)
        assert (machine.now, machine.since) == (target, 7.0)
        return
    with pytest.raises(IllegalTransition, match=f"from {source} to .*, got {target}"):
        machine.move(target, 7.0)
    assert machine.now is source


def test_every_state_can_be_left_and_reached() -> None:
    assert set(TRANSITIONS) == set(GpuState)
    assert {target for targets in TRANSITIONS.values() for target in targets} == set(GpuState)


def test_states_that_accept_work_hold_the_lease_and_none_loses_it_on_the_way() -> None:
    assert set(ACCEPTS_WORK) <= set(WITH_LEASE)
    # A grant alone leads to a state with the lease, and the end of LEAVING alone out of one.
    entered_from = {s for s, targets in TRANSITIONS.items() if s not in WITH_LEASE and set(targets) & set(WITH_LEASE)}
    left_from = {s for s, targets in TRANSITIONS.items() if s in WITH_LEASE and set(targets) - set(WITH_LEASE)}
    assert entered_from == {GpuState.WAITING}
    assert left_from == {GpuState.LEAVING}
