"""How long the coordinator waits for whom."""

from dataclasses import dataclass
from typing import Self

from django.conf import settings

# Callers of the older protocols know no renewal: theirs ends with their release, or after this.
UNRENEWED_SECS = 600.0
# Whoever was subscribed this recently may only be connecting again, with its model still on the card.
RESIDENT_SECS = 15.0


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """``ttl_secs``: a lease that is not renewed for so long is over. ``pause_secs``: for the residents' word that they
    leave, ``freed_secs``: until they have left. ``max_hold_secs``: after it, equals may ask the holder to leave too."""

    ttl_secs: float = 10.0
    pause_secs: float = 10.0
    freed_secs: float = 60.0
    max_hold_secs: float = 120.0
    unrenewed_secs: float = UNRENEWED_SECS
    resident_secs: float = RESIDENT_SECS

    @classmethod
    def from_settings(cls) -> Self:
        return cls(
            ttl_secs=settings.GPU_LEASE_TTL_SECS,
            pause_secs=settings.GPU_PAUSE_TIMEOUT,
            freed_secs=settings.GPU_FREED_TIMEOUT,
            max_hold_secs=settings.GPU_MAX_HOLD_SECS,
        )
