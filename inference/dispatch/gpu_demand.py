"""Demand for the GPU: whether to request the lease, with which priority and sessions. Knows no GPU states."""

from collections.abc import Callable

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.policy import SessionHolds, SpeedEstimate
from inference.gpu.lease.port import LeaseClient
from inference.runtime.circuit_breaker import CircuitBreaker

MAX_FAILURES, FAILURE_PAUSE_SECS = 3, 60.0
OBSTACLE_SECS = 5.0  # until an obstacle is checked again
UNTIL_NEW_WORK = float("inf")


class GpuDemand:
    """``reason``: why the GPU is not used, for users; empty when nothing prevents it.

    ``breaker`` counts sessions that ended with the exit of the GPU's runner.
    """

    def __init__(
        self, lease_client: LeaseClient, generations: ActiveGenerations, obstacle: Callable[[], str | None]
    ) -> None:
        self.reason = ""
        self.speed = SpeedEstimate()
        self.holds = SessionHolds()
        self.breaker = CircuitBreaker(max_failures=MAX_FAILURES, pause_secs=FAILURE_PAUSE_SECS)
        self._lease_client = lease_client
        self._generations = generations
        self._obstacle = obstacle
        self._requested: tuple[int, frozenset[str]] | None = None
        self._pause_until = 0.0

    def pause(self, until: float) -> None:
        """Request nothing until then, or until there is new work (UNTIL_NEW_WORK)."""
        self._pause_until = max(self._pause_until, until)

    def work_arrived(self, now: float) -> None:
        """New work or a new hold: an obstacle of earlier is checked again."""
        if self._pause_until == UNTIL_NEW_WORK:
            self._pause_until = 0.0
        if self._requested is None and now >= self._pause_until:
            self.reason = ""

    def admit(self, now: float) -> int | None:
        """Return a ticket of the circuit breaker when the lease is to be requested now."""
        is_held = bool(self.holds.current(now))
        if now < self._pause_until or not (is_held or self.speed.is_gpu_worthwhile(self._unstopped())):
            return None
        obstacle = self._obstacle()
        if obstacle is not None:
            self.reason = obstacle
            self.pause(now + OBSTACLE_SECS)
            return None
        ticket = self.breaker.admit()
        if ticket is None:
            self.reason = f"the GPU runner failed {MAX_FAILURES} times; tried again in {self.breaker.wait_secs:.0f} s"
        return ticket

    def refresh(self, now: float) -> bool:
        """Update the lease request when its priority or sessions changed; False when nothing needs the GPU any more."""
        generations, session_ids = self._unstopped(), self.holds.current(now)
        if not generations and not session_ids:
            return False
        priority = min((generation.priority for generation in generations), default=1)
        session_ids |= {generation.session_id for generation in generations if generation.session_id}
        if (priority, session_ids) != self._requested:
            self._requested = (priority, session_ids)
            self._lease_client.request(priority=priority, session_ids=session_ids)
        return True

    def granted(self) -> None:
        self._requested = None

    def withdraw(self) -> None:
        self._requested, self.reason = None, ""
        self._lease_client.withdraw()

    def _unstopped(self) -> list[ActiveGeneration]:
        return [generation for generation in self._generations.by_id.values() if generation.stop is None]
