"""Where we are with the card, and which moves there are. Knows no runner, no lease and no clock.

                         withdrawn                       died, lost, wanted back, not started
                    .----------------.              .-------------------------------------------.
                    v                |              |               |               |           v
    .-->  CPU  --> WAITING --> LOADING --> MOVING --> GPU --> YIELDING --> LEAVING --.
    |          asked     granted      ready    |  all there  ^   |   all back, or    |
    |                                          '-------------'---'   nothing to save |
    |                                            wanted back                         |
    '--------------------------------------------------------------------------------'
                       process gone, memory free, lease released, stay recorded

Work goes on in every stage: until GPU on the CPU's runner, from YIELDING on again.
"""

from enum import StrEnum


class Stage(StrEnum):
    """How one gets there is said beside each."""

    CPU = "cpu"  # at first; when the lease is released
    WAITING = "waiting"  # there is work for the card, and its keeper was told so
    LOADING = "loading"  # the lease was granted: the card's runner is being started
    MOVING = "moving"  # that runner is ready: sequences and saved states are on their way to it
    GPU = "gpu"  # all of them are there
    YIELDING = "yielding"  # wanted back, idle for long or held for long: all moves back
    LEAVING = "leaving"  # nothing is left there: its process is being ended, its memory looked at


MOVES: dict[Stage, tuple[Stage, ...]] = {
    Stage.CPU: (Stage.WAITING,),
    Stage.WAITING: (Stage.LOADING, Stage.CPU),
    Stage.LOADING: (Stage.MOVING, Stage.LEAVING),
    Stage.MOVING: (Stage.GPU, Stage.YIELDING, Stage.LEAVING),
    Stage.GPU: (Stage.YIELDING, Stage.LEAVING),
    Stage.YIELDING: (Stage.LEAVING,),
    Stage.LEAVING: (Stage.CPU,),
}
# In these the card's memory may be in use, and the lease must be ours.
WITH_LEASE = (Stage.LOADING, Stage.MOVING, Stage.GPU, Stage.YIELDING, Stage.LEAVING)
# In these new work begins on the card.
TAKES_WORK = (Stage.MOVING, Stage.GPU)


class IllegalMove(RuntimeError):
    """The message says from where, to where, and where one may go."""


class Stages:
    """The present stage; ``move`` is the only way to another."""

    def __init__(self) -> None:
        self.now = Stage.CPU
        self.since = 0.0  # on the placement's clock

    def move(self, to: Stage, at: float) -> None:
        if to not in MOVES[self.now]:
            allowed = " or ".join(MOVES[self.now])
            raise IllegalMove(f"expected a move from {self.now} to {allowed}, got {to}")
        self.now, self.since = to, at
