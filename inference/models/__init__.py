"""The tables of ``inference``: generations, and who has the GPU."""

from inference.enums import ENDED, WAITING, FinishReason, Priority, Status
from inference.models.generation import Generation
from inference.models.gpu import GpuLedger, HandOver

__all__ = ["ENDED", "WAITING", "FinishReason", "Generation", "GpuLedger", "HandOver", "Priority", "Status"]
