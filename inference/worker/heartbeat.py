"""The heartbeat of one worker: a counter in each row that it computes, and the check of the row at each beat."""

from collections.abc import Mapping
from uuid import UUID

from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration
from inference.models import Generation


class Heartbeat:
    def __init__(self, worker_name: str, active: Mapping[UUID, ActiveGeneration], dispatcher: Dispatcher) -> None:
        self._worker_name = worker_name
        self._active = active
        self._dispatcher = dispatcher

    def beat_once(self) -> None:
        """Raise the counters; drop rows that a later claim has taken, and cancel rows whose cancel message was lost."""
        active = dict(self._active)
        if not active:
            return
        Generation.objects.advance_heartbeats(worker=self._worker_name, generation_ids=list(active))
        rows = Generation.objects.running().filter(worker=self._worker_name, pk__in=list(active))
        claims = {
            pk: (epoch, cancel) for pk, epoch, cancel in rows.values_list("pk", "claim_epoch", "cancel_requested")
        }
        for generation_id, live in active.items():
            epoch, cancel_requested = claims.get(generation_id, (None, False))
            if epoch != live.epoch:
                self._dispatcher.drop(generation_id, live.epoch)
            elif cancel_requested:
                self._dispatcher.cancel(generation_id)
