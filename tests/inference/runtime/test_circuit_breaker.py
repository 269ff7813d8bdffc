"""The circuit breaker's states, by a clock that the test moves."""

import threading

import pytest

from inference.runtime.circuit_breaker import BreakerState, CircuitBreaker
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(max_failures=3, pause_secs=30.0, clock=clock)


def admitted(breaker: CircuitBreaker) -> int:
    ticket = breaker.admit()
    assert ticket is not None
    return ticket


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(admitted(breaker))


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert (breaker.state, breaker.admit(), breaker.wait_secs) == (BreakerState.OPEN, None, 30.0)


def test_a_success_between_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    breaker.succeeded(admitted(breaker))
    fail(breaker, 2)
    assert (breaker.state, breaker.n_failures, breaker.wait_secs) == (BreakerState.CLOSED, 2, 0.0)


def test_after_the_pause_one_call_alone_tries(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 29.9
    assert breaker.admit() is None
    clock.now += 0.1
    trial = admitted(breaker)
    assert (breaker.state, breaker.admit()) == (BreakerState.HALF_OPEN, None)
    breaker.succeeded(trial)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit() is not None


def test_a_failed_trial_opens_at_once_for_a_whole_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30
    fail(breaker)
    clock.now += 29
    assert (breaker.state, breaker.admit(), breaker.wait_secs) == (BreakerState.OPEN, None, 1.0)
    clock.now += 1
    assert breaker.admit() is not None


def test_a_trial_that_never_comes_back_makes_way(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30
    lost = admitted(breaker)
    clock.now += 30
    trial = admitted(breaker)
    breaker.failed(lost)  # it does come back, late
    assert breaker.admit() is None
    breaker.succeeded(trial)
    assert breaker.state is BreakerState.CLOSED


def test_a_call_that_began_before_it_opened_does_not_count(breaker: CircuitBreaker) -> None:
    early = [admitted(breaker) for _ in range(6)]
    for ticket in early[:3]:
        breaker.failed(ticket)
    assert breaker.state is BreakerState.OPEN
    breaker.succeeded(early[3])
    assert breaker.state is BreakerState.OPEN
    breaker.failed(early[4])
    assert breaker.n_failures == 3


def test_of_many_at_once_one_gets_the_trial(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30
    gate = threading.Barrier(16)
    tickets: list[int | None] = []

    def call() -> None:
        gate.wait()
        tickets.append(breaker.admit())

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ticket is not None for ticket in tickets) == 1
