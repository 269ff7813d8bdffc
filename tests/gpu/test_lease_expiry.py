"""Expiry of a lease as a watcher sees it, over wipes of Redis, stalls of the watcher and holders that fall silent."""

import random

import pytest

from inference.gpu.coordinator import ttl
from inference.gpu.coordinator.ttl import LeaseExpiry
from tests.gpu.tenants import Wire

TTL_SECS = 10.0
RENEW_SECS = TTL_SECS / 4
LOOK_SECS = 1.0
EPOCH = 7


class Watched:
    """A watcher with a real Redis; ``now`` is the clock of both."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.now = 100.0
        self.ends_at = 0.0
        self._expiry = LeaseExpiry(TTL_SECS, clock=lambda: self.now)

    def renew(self) -> None:
        self.ends_at = self.now + TTL_SECS

    def wipe(self) -> None:
        self.ends_at = 0.0
        self._wire.flushall()

    def has_passed(self) -> bool:
        """Look. The key gets the time that it has left by now; a sentinel outlasts all of a test."""
        if self.ends_at > self.now:
            ttl.extend(self._wire, EPOCH, self.ends_at - self.now)
        else:
            ttl.end(self._wire, EPOCH)
        return self._expiry.has_passed(self._wire, EPOCH)

    def passed_at(self, look_secs: float = LOOK_SECS) -> float:
        for _ in range(1000):
            if self.has_passed():
                return self.now
            self.now += look_secs
        raise AssertionError("the lease never ends")


@pytest.fixture
def watched(wire: Wire) -> Watched:
    return Watched(wire)


def test_without_a_wipe_it_ends_with_the_key(watched: Watched) -> None:
    watched.renew()
    ends_at = watched.ends_at
    assert ends_at <= watched.passed_at() <= ends_at + LOOK_SECS


@pytest.mark.parametrize("wiped_after_secs", [0.0, 0.1, 0.9])
def test_a_renewal_that_no_look_saw_before_the_wipe_counts(watched: Watched, wiped_after_secs: float) -> None:
    watched.renew()
    watched.now += RENEW_SECS - 0.01
    assert not watched.has_passed()
    watched.now += 0.01
    watched.renew()
    renewed_at = watched.now
    watched.now += wiped_after_secs
    watched.wipe()
    assert renewed_at + TTL_SECS <= watched.passed_at() <= renewed_at + TTL_SECS + wiped_after_secs + LOOK_SECS


def test_after_a_stall_of_the_watcher_a_lost_key_may_have_been_renewed(watched: Watched) -> None:
    watched.renew()
    assert not watched.has_passed()
    for _ in range(6):  # meanwhile
        watched.now += RENEW_SECS
        watched.renew()
    renewed_at = watched.now
    watched.wipe()
    assert watched.passed_at() >= renewed_at + TTL_SECS


@pytest.mark.parametrize("seed", range(100))
def test_it_ends_after_the_last_renewal_has_run_out_and_soon(watched: Watched, seed: int) -> None:
    dice = random.Random(seed)
    watched.renew()
    renewed_at = watched.now
    next_renewal, next_look = watched.now + RENEW_SECS, watched.now + dice.uniform(0.0, LOOK_SECS)
    silent_from = watched.now + dice.uniform(0.0, 60.0)
    wipes = sorted(watched.now + dice.uniform(0.0, 80.0) for _ in range(dice.randrange(6)))
    longest_gap = wiped_at = 0.0
    while True:
        watched.now = min(next_renewal, next_look, *wipes[:1])
        if wipes and watched.now == wipes[0]:
            wiped_at = wipes.pop(0)
            watched.wipe()
        elif watched.now == next_renewal:
            next_renewal += RENEW_SECS
            if watched.now < silent_from:
                watched.renew()
                renewed_at = watched.now
        else:
            gap = dice.choice((LOOK_SECS, LOOK_SECS, LOOK_SECS, dice.uniform(0.0, 15.0)))
            longest_gap = max(longest_gap, gap)
            next_look += gap
            if watched.has_passed():
                break
    assert watched.now >= renewed_at + TTL_SECS - 0.001
    assert watched.now <= max(renewed_at, wiped_at) + TTL_SECS + 2 * longest_gap  # each wipe costs a lifetime at most
