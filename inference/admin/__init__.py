"""Admin pages of generations, hand-overs and usage; Django's autodiscovery imports this package."""

from inference.admin.generations import GenerationAdmin
from inference.admin.hand_overs import HandOverAdmin
from inference.admin.usage import DailyUsageAdmin

__all__ = ["DailyUsageAdmin", "GenerationAdmin", "HandOverAdmin"]
