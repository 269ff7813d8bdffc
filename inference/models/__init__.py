"""The tables of ``inference``: generations, the GPU (ledger, leases, sessions, hand-overs), purge requests, usage."""

from inference.enums import ENDED, WAITING, FinishReason, Priority, Status
from inference.models.generation import Generation
from inference.models.gpu import GpuLedger, HandOver, LeaseRecord, OutsideSession
from inference.models.purge import PurgeRequest
from inference.models.usage import DailyUsage

__all__ = [
    "ENDED",
    "WAITING",
    "DailyUsage",
    "FinishReason",
    "Generation",
    "GpuLedger",
    "HandOver",
    "LeaseRecord",
    "OutsideSession",
    "Priority",
    "PurgeRequest",
    "Status",
]
