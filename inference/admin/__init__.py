"""Admin pages of hand-overs and usage; Django's autodiscovery imports this package."""

from inference.admin.hand_overs import HandOverAdmin
from inference.admin.usage import DailyUsageAdmin

__all__ = ["DailyUsageAdmin", "HandOverAdmin"]
