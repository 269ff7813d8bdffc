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


class GpuState(StrEnum):
    """How one gets there is said beside each."""

    CPU = "cpu"  # at first; when the lease is released
    WAITING = "waiting"  # there is work for the card, and its lease_client was told so
    LOADING = "loading"  # the lease was granted: the card's runner is being started
    MOVING = "moving"  # that runner is ready: sequences and saved states are on their way to it
    GPU = "gpu"  # all of them are there
    YIELDING = "yielding"  # wanted back, idle for long or held for long: all moves back
    LEAVING = "leaving"  # nothing is left there: its process is being ended, its memory looked at


TRANSITIONS: dict[GpuState, tuple[GpuState, ...]] = {
    GpuState.CPU: (GpuState.WAITING,),
    GpuState.WAITING: (GpuState.LOADING, GpuState.CPU),
    GpuState.LOADING: (GpuState.MOVING, GpuState.LEAVING),
    GpuState.MOVING: (GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING),
    GpuState.GPU: (GpuState.YIELDING, GpuState.LEAVING),
    GpuState.YIELDING: (GpuState.LEAVING,),
    GpuState.LEAVING: (GpuState.CPU,),
}
# In these the card's memory may be in use, and the lease must be ours.
WITH_LEASE = (GpuState.LOADING, GpuState.MOVING, GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING)
# In these new work begins on the card.
ACCEPTS_WORK = (GpuState.MOVING, GpuState.GPU)


class IllegalTransition(RuntimeError):
    """The message says from where, to where, and where one may go."""


class GpuStateMachine:
    """The present stage; ``move`` is the only way to another."""

    def __init__(self) -> None:
        self.now = GpuState.CPU
        self.since = 0.0  # on the placement's clock

    def move(self, to: GpuState, at: float) -> None:
        if to not in TRANSITIONS[self.now]:
            allowed = " or ".join(TRANSITIONS[self.now])
            raise IllegalTransition(f"expected a move from {self.now} to {allowed}, got {to}")
        self.now, self.since = to, at
