"""A thread that does one unit of work again and again until it is told to stop. The units are elsewhere."""

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, connections
from redis.exceptions import RedisError

from inference.errors import InferenceError

log = logging.getLogger(__name__)


class RepeatingThread:
    """Does ``unit`` at once and then every ``interval_secs``."""

    def __init__(self, name: str, interval_secs: float, unit: Callable[[], object]) -> None:
        self._name = name
        self._interval_secs = interval_secs
        self._unit = unit
        self._stop = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self, timeout_secs: float) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_secs)

    def _run(self) -> None:
        try:
            while True:
                self._do_unit()
                if self._stop.wait(self._interval_secs):
                    return
        finally:
            connections.close_all()  # Celery closes those of its own threads only

    def _do_unit(self) -> None:
        try:
            self._unit()
        except (DatabaseError, RedisError, InferenceError, OSError) as error:
            # Said once per outage, not every second of it.
            log.log(logging.DEBUG if self._is_failing else logging.WARNING, "%s: %s; trying again", self._name, error)
            self._is_failing = True
            connections.close_all()
        except Exception:
            # A loop that ended here would leave claims without a heartbeat or rows without a sweep.
            log.exception("%s: a unit failed; going on", self._name)
            connections.close_all()
        else:
            if self._is_failing:
                log.info("%s: works again", self._name)
            self._is_failing = False
