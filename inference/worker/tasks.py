"""Celery's side: a ring becomes one unit of work of the process-wide worker, which lives as long as Celery's."""

import threading

from celery import bootsteps, shared_task, signals
from celery.worker import WorkController
from celery.worker.consumer import Consumer
from django.conf import settings

from inference.queue.notify import GENERATE_TASK
from inference.worker.worker import Worker

# Celery's event loop looks at its signals only when something happens: otherwise every ten seconds.
LOOK_AT_SIGNALS_SECS = 0.25

_worker: Worker | None = None


@shared_task(name=GENERATE_TASK, ignore_result=True, acks_late=False)
def generate(generation_id: str) -> None:
    """There is work: run the row that is next, which need not be the one that rang."""
    if _worker is not None:
        _worker.run_next()


class LookAtSignals(bootsteps.StartStopStep):
    """Lets Celery's loop turn now and then. Started again with each connection, whose loss clears all timers."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Consumer) -> None:
        hub = getattr(parent, "hub", None)  # the type stubs do not know it; None without an event loop
        if hub is not None:
            hub.call_repeatedly(LOOK_AT_SIGNALS_SECS, _turn)


def _turn() -> None:
    """Nothing: the loop has turned."""


@signals.worker_init.connect
def _begin(sender: WorkController, **_: object) -> None:
    """Load the model, but only in the Celery worker that answers rings for it."""
    global _worker
    if settings.CELERY_TASK_DEFAULT_QUEUE not in sender.app.amqp.queues.consume_from:
        return
    sender.app.steps["consumer"].add(LookAtSignals)
    _worker = Worker()
    _worker.begin()


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    """Begin to stop at the signal: Celery then waits for its tasks, which wait for the worker to let them go.

    In a thread, since this runs inside the signal handler of the main thread.
    """
    global _worker
    worker, _worker = _worker, None  # a second signal finds it stopping already
    if worker is not None:
        threading.Thread(target=worker.stop, args=[settings.DRAIN_SECS], name="worker stop").start()
