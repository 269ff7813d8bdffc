"""The tables of ``inference``: generations, the GPU ledger, hand-overs and purge requests."""

from inference.enums import ENDED, WAITING, FinishReason, Priority, Status
from inference.models.generation import Generation
from inference.models.gpu import GpuLedger, HandOver
from inference.models.purge import PurgeRequest

__all__ = [
    "ENDED",
    "WAITING",
    "FinishReason",
    "Generation",
    "GpuLedger",
    "HandOver",
    "Priority",
    "PurgeRequest",
    "Status",
]
