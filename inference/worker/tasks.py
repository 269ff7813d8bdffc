"""Celery's side of the process-wide worker: starts and stops it, and gives it one unit of work per wake-up message."""

import threading

from celery import shared_task, signals
from celery.worker import WorkController
from django.conf import settings

from compat.celery_worker import handle_signals_soon
from inference.queue.notify import GENERATE_TASK
from inference.worker.worker import Worker

_worker: Worker | None = None


@shared_task(name=GENERATE_TASK, ignore_result=True, acks_late=False)
def generate(generation_id: str) -> None:
    """Run the next row, which need not be the one of the message."""
    if _worker is not None:
        _worker.run_next()


@signals.worker_init.connect
def _begin(sender: WorkController, **_: object) -> None:
    """Start the worker, but only in the Celery process that consumes the queue of generations."""
    global _worker
    if settings.CELERY_TASK_DEFAULT_QUEUE not in sender.app.amqp.queues.consume_from:
        return
    handle_signals_soon(sender.app)
    _worker = Worker()
    _worker.begin()


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    """Stop the worker at the signal. Celery then waits for its tasks, which end when the worker releases their claims.

    In a thread, since this runs inside the signal handler of the main thread.
    """
    global _worker
    worker, _worker = _worker, None  # a second signal finds it stopping already
    if worker is not None:
        threading.Thread(target=worker.stop, args=[settings.DRAIN_SECS], name="worker stop").start()
