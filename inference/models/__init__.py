"""The tables of ``inference``: generations, the GPU ledger, outside sessions, hand-overs and purge requests."""

from inference.enums import ENDED, WAITING, FinishReason, Priority, Status
from inference.models.generation import Generation
from inference.models.gpu import GpuLedger, HandOver, OutsideSession
from inference.models.purge import PurgeRequest

__all__ = [
    "ENDED",
    "WAITING",
    "FinishReason",
    "Generation",
    "GpuLedger",
    "HandOver",
    "OutsideSession",
    "Priority",
    "PurgeRequest",
    "Status",
]
