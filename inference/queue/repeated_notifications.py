"""Wake-up messages that were lost: sent again for queued rows, unbuilt prompts and ends that have a follow-up."""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from inference.models import Generation
from inference.queue.notify import notify
from inference.queue.results import failed
from inference.queue.termination import terminate

QUEUED_SECS = 2.0
PREPARE_SECS = 10.0
FOLLOW_UP_SECS = 5.0
BATCH_ROWS = 200


class RepeatedNotifications:
    """``n_claimable`` returns the number of wake-up messages that would lead to a claim in this worker now."""

    def __init__(self, n_claimable: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._n_claimable = n_claimable
        self._clock = clock
        self._prepare_sent: dict[UUID, float] = {}
        self._follow_up_sent: dict[UUID, float] = {}

    def run_once(self) -> None:
        self._notify_of_queued()
        self._notify_of_unprepared()
        self._notify_of_follow_ups()

    def _notify_of_queued(self) -> None:
        """Send a message for each claim that this worker could make; it leads to the next row, not to its own."""
        n_claimable = self._n_claimable()
        if n_claimable <= 0:
            return
        rows = Generation.objects.queued().filter(queued_at__lt=timezone.now() - timedelta(seconds=QUEUED_SECS))
        for generation_id in rows.order_by("queued_at").values_list("pk", flat=True)[:n_claimable]:
            if not notify(generation_id):  # the broker is unavailable; the next round tries again
                return

    def _notify_of_unprepared(self) -> None:
        now = self._clock()
        stuck = Generation.objects.stuck_preparing(timezone.now(), after_secs=PREPARE_SECS)
        rows = list(stuck.values_list("pk", "prepare_task")[:BATCH_ROWS])
        for generation_id, task in rows:
            if not task:
                terminate(generation_id, failed("not_prepared", "The process that builds the prompt has ended."))
        with_task = [(generation_id, task) for generation_id, task in rows if task]
        self._prepare_sent = _repeat(with_task, self._prepare_sent, now, PREPARE_SECS, first=now - PREPARE_SECS)

    def _notify_of_follow_ups(self) -> None:
        """The end of a row sends the message itself. A row that is seen for the first time gets time for that."""
        now = self._clock()
        rows = Generation.objects.to_follow_up().values_list("pk", "follow_up_task")[:BATCH_ROWS]
        self._follow_up_sent = _repeat(rows, self._follow_up_sent, now, FOLLOW_UP_SECS, first=now)


def _repeat(
    rows: Iterable[tuple[UUID, str]], sent: dict[UUID, float], now: float, interval_secs: float, *, first: float
) -> dict[UUID, float]:
    """Send each row's task once per interval; returns the times of sending. ``first`` is that of a new row."""
    times = {}
    for generation_id, task in rows:
        times[generation_id] = sent.get(generation_id, first)
        if now - times[generation_id] >= interval_secs:
            times[generation_id] = now
            notify(generation_id, task)
    return times
