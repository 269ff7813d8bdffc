"""Time limits of the built-in coordinator."""

from dataclasses import dataclass
from typing import Self

from django.conf import settings

# The older protocols have no renewal: their leases end with the release, or after this.
UNRENEWED_SECS = 600.0
# A resident that was subscribed this recently may be reconnecting, with its model still on the GPU.
RESIDENT_SECS = 15.0


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """``ttl_secs``: lifetime of a lease without renewal. ``pause_secs``: until the residents acknowledge a pause,
    ``freed_secs``: until they have left. ``max_hold_secs``: after it, requests of equal priority recall the lease.
    ``watcher_secs``: a subscriber that has answered no pause for so long only watches; 0: none does."""

    ttl_secs: float = 10.0
    pause_secs: float = 10.0
    freed_secs: float = 60.0
    max_hold_secs: float = 120.0
    unrenewed_secs: float = UNRENEWED_SECS
    resident_secs: float = RESIDENT_SECS
    watcher_secs: float = 120.0

    @classmethod
    def from_settings(cls) -> Self:
        return cls(
            ttl_secs=settings.GPU_LEASE_TTL_SECS,
            unrenewed_secs=settings.GPU_UNRENEWED_LEASE_SECS,
            pause_secs=settings.GPU_PAUSE_TIMEOUT,
            freed_secs=settings.GPU_FREED_TIMEOUT,
            max_hold_secs=settings.GPU_MAX_HOLD_SECS,
            watcher_secs=settings.GPU_WATCHER_SECS,
        )
