"""The operators' pages of generations and hand-overs. Django imports this package alone."""

from inference.admin.generations import GenerationAdmin
from inference.admin.hand_overs import HandOverAdmin

__all__ = ["GenerationAdmin", "HandOverAdmin"]
