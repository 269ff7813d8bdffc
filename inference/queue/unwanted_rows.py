"""Rows that have to end: waiting ones that are cancelled or past their deadline, and parts that no turn waits for.

A running row keeps its own deadline.
"""

from functools import partial

from inference.models import Generation
from inference.queue import parts
from inference.queue.deadlines import Deadlines
from inference.queue.delayed_termination import DelayedTermination
from inference.queue.results import CANCELLED, TIMED_OUT
from inference.queue.termination import terminate

BATCH_ROWS = 200


class UnwantedRows:
    def __init__(self, termination: DelayedTermination, deadlines: Deadlines) -> None:
        self._termination = termination
        self._deadlines = deadlines

    def run_once(self) -> None:
        # A cancel that arrived while the worker died still has to be obeyed.
        cancelled = Generation.objects.queued().filter(cancel_requested=True).values_list("pk", flat=True)
        for generation_id in list(cancelled[:BATCH_ROWS]):
            self._termination.attempt(generation_id, partial(terminate, ending=CANCELLED))
        unfinished = Generation.objects.with_deadline().values_list("pk", "deadline_at", "timeout_secs")
        for generation_id in self._deadlines.overdue(unfinished):
            self._termination.attempt(generation_id, partial(terminate, ending=TIMED_OUT))
        parts.cancel_unneeded()
