"""States of the GPU as seen by the dispatcher, and the legal transitions. Knows no runner, no lease and no clock.

                     request withdrawn            runner exited, lease lost or recalled, start failed
                    .----------------.              .-------------------------------------------.
                    v                |              |               |               |           v
    .-->  CPU  --> WAITING --> LOADING --> MOVING --> GPU --> YIELDING --> LEAVING --.
    |       requested   granted      ready     |  all moved ^   |  all moved back, or |
    |                                          '------------'---'  nothing to save    |
    |                                             recalled                           |
    '--------------------------------------------------------------------------------'
                process ended, memory free, lease released, session recorded

Generations are computed in every state: until GPU by the CPU's runner, from YIELDING on by it again.
"""

from enum import StrEnum

from inference.runtime.state_machine import StateMachine


class GpuState(StrEnum):
    """The comment of a member names the event that leads to it. The values are shown by /health."""

    CPU = "cpu"  # at first; the lease was released
    WAITING = "waiting"  # the lease is requested
    LOADING = "loading"  # the lease was granted: the GPU's runner is being started
    MOVING = "moving"  # that runner is ready: sequences and checkpoints are on their way to it
    GPU = "gpu"  # all of them have arrived
    YIELDING = "yielding"  # recalled, idle or held for long: everything moves back
    LEAVING = "leaving"  # nothing is left to save: the process is being ended and its memory checked


TRANSITIONS: dict[GpuState, tuple[GpuState, ...]] = {
    GpuState.CPU: (GpuState.WAITING,),
    GpuState.WAITING: (GpuState.LOADING, GpuState.CPU),
    GpuState.LOADING: (GpuState.MOVING, GpuState.LEAVING),
    GpuState.MOVING: (GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING),
    GpuState.GPU: (GpuState.YIELDING, GpuState.LEAVING),
    GpuState.YIELDING: (GpuState.LEAVING,),
    GpuState.LEAVING: (GpuState.CPU,),
}
# The memory of the GPU may be in use, and the lease must be ours.
WITH_LEASE = (GpuState.LOADING, GpuState.MOVING, GpuState.GPU, GpuState.YIELDING, GpuState.LEAVING)
# New generations start on the GPU.
ACCEPTS_WORK = (GpuState.MOVING, GpuState.GPU)


def gpu_state_machine() -> StateMachine[GpuState]:
    return StateMachine(GpuState.CPU, TRANSITIONS)
