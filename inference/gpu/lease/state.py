"""States of the lease client. Knows no coordinator and no clock.

       request                call sent               granted
IDLE ----------> PENDING -----------------> ACQUIRING --------> HELD --.
 ^ ^                |    <-----------------     |  ^             |     | not renewed
 | '----------------'      denied, call         |  | requested   |     v
 |     withdrawn           withdrawn            |  | again       |    LOST
 |                                   withdrawn  v  |             |     |
 |                                          WITHDRAWING          |     |
 |                 the call has returned         |               |     |
 '-----------------------------------------------'---------------'-----'
                                                      released
"""

from enum import StrEnum


class LeaseState(StrEnum):
    """The comment of a member names the event that leads to it."""

    IDLE = "idle"  # at first; the request was withdrawn, or the lease released
    PENDING = "pending"  # requested, no call out: the backoff runs, or an earlier release has to arrive first
    ACQUIRING = "acquiring"  # an ``acquire`` call is out, and its grant is wanted
    WITHDRAWING = "withdrawing"  # an ``acquire`` call is out, and a grant would be released at once
    HELD = "held"  # granted
    LOST = "lost"  # expired, or taken by another session; it still has to be released


LEASE_TRANSITIONS: dict[LeaseState, tuple[LeaseState, ...]] = {
    LeaseState.IDLE: (LeaseState.PENDING,),
    LeaseState.PENDING: (LeaseState.IDLE, LeaseState.ACQUIRING),
    LeaseState.ACQUIRING: (LeaseState.HELD, LeaseState.PENDING, LeaseState.WITHDRAWING),
    LeaseState.WITHDRAWING: (LeaseState.ACQUIRING, LeaseState.IDLE),
    LeaseState.HELD: (LeaseState.LOST, LeaseState.IDLE),
    LeaseState.LOST: (LeaseState.IDLE,),
}
# Between the grant and the release of a lease.
WITH_LEASE = (LeaseState.HELD, LeaseState.LOST)
# A request stands that no grant has answered yet.
REQUESTED = (LeaseState.PENDING, LeaseState.ACQUIRING)


def reported_state(state: LeaseState, *, is_refused: bool) -> str:
    """Return the name of a state in /health; ``is_refused``: the last answer was a refusal."""
    match state:
        case LeaseState.HELD | LeaseState.LOST:
            return "held"
        case LeaseState.PENDING if is_refused:
            return "refused"
        case LeaseState.PENDING | LeaseState.ACQUIRING:
            return "waiting"
        case _:
            return "idle"
