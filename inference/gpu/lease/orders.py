"""Orders to the thread of the lease client, from callers, the command listener and the ``acquire`` call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.gpu.lease.acquire import CallAnswered, CallWaiting


@dataclass(frozen=True)
class RequestLease:
    priority: int
    session_ids: frozenset[str]


@dataclass(frozen=True)
class WithdrawRequest:
    """Nothing needs the GPU any more."""


@dataclass(frozen=True)
class ReleaseLease:
    session_id: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class PauseReceived:
    """``requester`` wants the GPU from the session; sent on the channel that all tenants share."""

    session_id: str
    requester: str


@dataclass(frozen=True)
class EndClient:
    """The last order."""


LeaseOrder = RequestLease | WithdrawRequest | ReleaseLease | PauseReceived | CallWaiting | CallAnswered | EndClient
