"""A thread that repeats one unit of work until it is stopped. Knows nothing of the units."""

import logging
import threading
from collections.abc import Callable

from django.db import DatabaseError, connections
from redis.exceptions import RedisError

from inference.errors import InferenceError

log = logging.getLogger(__name__)


class RepeatingThread:
    """Runs ``unit`` at once and then every ``interval_secs``."""

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
            # Once per outage at a level that operators see, not with each repetition.
            level = logging.DEBUG if self._is_failing else logging.WARNING
            log.log(level, "unit failed, trying again thread=%s error=%s", self._name, error)
            self._is_failing = True
            connections.close_all()
        except Exception:
            # A thread that ended here would leave claims without a heartbeat, or rows without a reaper.
            log.exception("unit failed, trying again thread=%s", self._name)
            connections.close_all()
        else:
            if self._is_failing:
                log.info("unit works again thread=%s", self._name)
            self._is_failing = False
