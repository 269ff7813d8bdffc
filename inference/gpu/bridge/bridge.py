"""The bridge: a tenant of the GPU in place of a program that knows nothing of it.

The tenant's thread calls ``pause`` and ``resume``; the main thread looks after the program while the GPU is lent, and
repeats failed attempts. Nothing is reported as paused before the program was seen without memory of the GPU.
"""

import logging
import threading
import time

from inference.gpu.bridge.neighbour import Neighbour, NeighbourError
from inference.gpu.sdk.tenant import LONELY_SECS

log = logging.getLogger(__name__)

LOOK_SECS = 0.2  # between two looks at a program that is leaving
RETRY_SECS = 2.0  # between two attempts to make it leave, or to let it come back
N_LOOKS = 2  # in a row that find it off: it may be about to load again for a request that waits
N_LAST_TRIES = 3
LEND_SECS = 8.0  # for the lease to end when the bridge ends while the GPU is lent


class Bridge:
    """A neighbour, paused while another session has the GPU."""

    def __init__(self, neighbour: Neighbour, *, pause_secs: float) -> None:
        self._neighbour = neighbour
        self._pause_secs = pause_secs
        self._calls = threading.RLock()  # of the neighbour, by both threads
        self._is_lent = False
        self._must_resume = neighbour.needs_resume()
        # A program that an earlier bridge has paused comes back without a coordinator, too, like every tenant.
        self._resume_from = time.monotonic() + LONELY_SECS
        self._thread_id = threading.get_ident()
        # A number and no event: a signal that came while its thread waits for an event could not set it.
        self._n_stops = 0

    def stop(self) -> None:
        """End ``serve``; called again: without waiting for the lease. Signals call this."""
        self._n_stops += 1

    # ---- called by the tenant ----

    def pause(self) -> None:
        """Return when the program has left. Raises NeighbourError when it has not within the time."""
        if self._n_stops and threading.get_ident() == self._thread_id:
            return  # no coordinator waits for this: the tenant leaves, and the program stays as it is
        self._is_lent = True
        with self._calls:
            problem = self._wait_until_off()
        if problem:
            raise NeighbourError(f"{self._neighbour.name} has not left the GPU: {problem}")

    def _wait_until_off(self) -> str:
        """Make the program leave; return the reason when it has not within the time."""
        began = time.monotonic()
        problem, n_looks, tried_at = "it still holds memory of the GPU", 0, began - RETRY_SECS
        while time.monotonic() < began + self._pause_secs and not self._n_stops:
            is_due = time.monotonic() >= tried_at + RETRY_SECS
            tried_at = time.monotonic() if is_due else tried_at
            try:
                if is_due and not self._neighbour.is_off():
                    self._neighbour.leave()
                n_looks = n_looks + 1 if self._neighbour.is_off() else 0
            except NeighbourError as error:
                n_looks = 0
                if str(error) != problem:  # once, not five times a second
                    log.warning("not paused yet neighbour=%s error=%s", self._neighbour.name, error)
                problem = str(error)
            if n_looks >= N_LOOKS:
                log.info("paused neighbour=%s secs=%.1f", self._neighbour.name, time.monotonic() - began)
                return ""
            time.sleep(LOOK_SECS)
        return problem

    def resume(self) -> None:
        """Let the program come back; ``serve`` repeats a failed attempt."""
        was_lent, self._is_lent = self._is_lent, False
        self._must_resume |= was_lent
        self._resume_from = 0.0
        if self._must_resume:
            self._try_to_resume()

    # ---- the main thread ----

    def serve(self) -> bool:
        """Look after the program until ``stop``; return whether it was left as it was."""
        looked_at = time.monotonic()
        while not self._n_stops:
            time.sleep(LOOK_SECS)
            if time.monotonic() >= looked_at + (self._neighbour.watch_secs if self._is_lent else RETRY_SECS):
                self._look()
                looked_at = time.monotonic()
        self._neighbour.interrupt()
        return self._end()

    def _look(self) -> None:
        """Repeat a failed attempt, and free the GPU again if the program came back while it is lent."""
        if not self._calls.acquire(blocking=False):
            return  # it is leaving or coming back now
        try:
            if self._is_lent and not self._n_stops:
                self._keep_off()
            elif self._must_resume and not self._is_lent and time.monotonic() >= self._resume_from:
                self._try_to_resume()
        finally:
            self._calls.release()

    def _keep_off(self) -> None:
        try:
            if not self._neighbour.is_off():
                log.warning("came back while the gpu is lent, freed again neighbour=%s", self._neighbour.name)
                self._neighbour.leave()
        except NeighbourError as error:
            log.warning("cannot be kept off the gpu neighbour=%s error=%s", self._neighbour.name, error)

    def _try_to_resume(self) -> None:
        with self._calls:
            try:
                self._neighbour.come_back()
            except NeighbourError as error:
                log.warning("not resumed yet neighbour=%s error=%s", self._neighbour.name, error)
                return
            self._must_resume = False
        log.info("resumed neighbour=%s", self._neighbour.name)

    def _end(self) -> bool:
        """Let the program come back, if possible once the lease has ended; return whether it has."""
        deadline = time.monotonic() + LEND_SECS
        while self._is_lent and time.monotonic() < deadline and self._n_stops == 1:
            time.sleep(LOOK_SECS)
        if self._is_lent:
            log.warning("resumed although the gpu is lent: this bridge ends neighbour=%s", self._neighbour.name)
            self.resume()
        for _ in range(N_LAST_TRIES):
            if not self._must_resume:
                return True
            time.sleep(LOOK_SECS)
            self._try_to_resume()
        return not self._must_resume
