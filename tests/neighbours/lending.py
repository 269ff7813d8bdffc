"""Another session that takes the GPU from the built-in coordinator, as the chat does, and gives it back."""

import time
from collections.abc import Callable

from django.db import connections

from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.wait_queue import Waiter
from tests.neighbours.coordinator import Wire

PATIENCE_SECS = 20.0


def wait_for(condition: Callable[[], object], secs: float = PATIENCE_SECS) -> float:
    """Poll until it is so; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < secs, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


def acquire(wire: Wire, *, pause_secs: float = 5.0, freed_secs: float = 8.0) -> float | None:
    """Return how long the grant took, None for a refusal."""
    config = CoordinatorConfig(pause_secs=pause_secs, freed_secs=freed_secs)
    waiter = Waiter("gemma-service", f"ours-{time.monotonic()}", 1)
    acquisition = Acquisition(wire, config, waiter=waiter, timeout_secs=10.0, renews=False)
    while (verdict := acquisition.step()) is None:
        time.sleep(acquisition.pause_secs)
    connections.close_all()
    return verdict.waited_secs if isinstance(verdict, AcquisitionGranted) else None


def give_back(wire: Wire) -> None:
    api.reset(wire)
    connections.close_all()
