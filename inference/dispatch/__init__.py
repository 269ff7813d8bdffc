"""Which runner, on which device, computes which live generation, and how all of them move when the card changes hands.

events -> placement (one thread) -> roster (lives), runner_slot (a process), tenancy (the card: stages, lease, moves)
"""

from inference.dispatch.dispatcher import Placement

__all__ = ["Placement"]
