"""Which card there is for this installation."""

from django.conf import settings

from inference.gpu.device.card import Card, SimulatedCard
from inference.gpu.device.nvml import NvmlCard


def find_card(mode: str) -> Card | None:
    """The card of ``GEMMA_GPU``'s modes; None: there is none, or it must not be used.

    Whether the installed llama.cpp can use it is not asked here.
    """
    if mode == "simulated":
        return SimulatedCard()
    return NvmlCard.open(settings.GEMMA_MAIN_GPU) if mode == "auto" else None
