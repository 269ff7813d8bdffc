"""Admin pages of generations and hand-overs; Django's autodiscovery imports this package."""

from inference.admin.generations import GenerationAdmin
from inference.admin.hand_overs import HandOverAdmin

__all__ = ["GenerationAdmin", "HandOverAdmin"]
