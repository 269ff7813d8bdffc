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


class RepeatedTask:
    """Sends the task of a row again every ``interval_secs``, as long as the row is in the list."""

    def __init__(self, interval_secs: float) -> None:
        self._interval_secs = interval_secs
        self._sent: dict[UUID, float] = {}

    def send(self, rows: Iterable[tuple[UUID, str]], now: float, *, first: float) -> None:
        """Send the task of each row that is due; ``first`` counts as the time of sending for a new row."""
        times = {}
        for generation_id, task in rows:
            times[generation_id] = self._sent.get(generation_id, first)
            if now - times[generation_id] >= self._interval_secs:
                times[generation_id] = now
                notify(generation_id, task)
        self._sent = times


class QueuedNotifications:
    """``n_claimable`` returns the number of wake-up messages that would lead to a claim in this worker now."""

    def __init__(self, n_claimable: Callable[[], int]) -> None:
        self._n_claimable = n_claimable

    def run_once(self) -> None:
        """Send a message for each claim that this worker could make; it leads to the next row, not to its own."""
        n_claimable = self._n_claimable()
        if n_claimable <= 0:
            return
        rows = Generation.objects.queued().filter(queued_at__lt=timezone.now() - timedelta(seconds=QUEUED_SECS))
        for generation_id in rows.order_by("queued_at").values_list("pk", flat=True)[:n_claimable]:
            if not notify(generation_id):  # the broker is unavailable; the next round tries again
                return


class PreparationNotifications:
    """Rows whose prompt is not built."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks = RepeatedTask(PREPARE_SECS)

    def run_once(self) -> None:
        """Send the task that builds the prompt again; a row without such a task is terminated."""
        now = self._clock()
        stuck = Generation.objects.stuck_preparing(timezone.now(), after_secs=PREPARE_SECS)
        rows = list(stuck.values_list("pk", "prepare_task")[:BATCH_ROWS])
        for generation_id, task in rows:
            if not task:
                terminate(generation_id, failed("not_prepared", "The process that builds the prompt has ended."))
        with_task = [(generation_id, task) for generation_id, task in rows if task]
        self._tasks.send(with_task, now, first=now - PREPARE_SECS)


class FollowUpNotifications:
    """Ended rows whose follow-up task has not run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks = RepeatedTask(FOLLOW_UP_SECS)

    def run_once(self) -> None:
        """Send the task again. The end of a row sends it, too: a row that is new here gets time for that."""
        now = self._clock()
        rows = Generation.objects.to_follow_up().values_list("pk", "follow_up_task")[:BATCH_ROWS]
        self._tasks.send(rows, now, first=now)
