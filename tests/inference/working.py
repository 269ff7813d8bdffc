"""A worker with a real runner process on the fake model, and generations running in threads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections

from inference.models import Generation
from inference.worker.worker import Worker

PATIENCE_SECS = 30.0


def eventually(condition: Callable[[], bool], *, secs: float = PATIENCE_SECS) -> bool:
    deadline = time.monotonic() + secs
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Notifier:
    """Answers wake-up messages as Celery's threads would: each call of ``notify`` is one unit of work in a thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._threads: list[threading.Thread] = []

    def notify(self, count: int = 1) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._run)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_SECS)
            assert not thread.is_alive()

    def _run(self) -> None:
        try:
            self._worker.run_next()
        finally:
            connections.close_all()


@contextmanager
def running_worker(*, drain_secs: float = 0.0) -> Iterator[tuple[Worker, Notifier]]:
    worker = Worker()
    notifier = Notifier(worker)
    worker.begin()
    try:
        yield worker, notifier
    finally:
        worker.stop(drain_secs)
        notifier.join()


def has_tokens(generation: Generation, count: int, worker: Worker) -> Callable[[], bool]:
    """Return whether ``worker`` has computed that many tokens of it."""

    def condition() -> bool:
        live = worker.claims.active.get(generation.pk)
        return live is not None and len(live.tokens) >= count

    return condition


def is_ended(generation: Generation) -> bool:
    generation.refresh_from_db()
    return generation.is_ended
