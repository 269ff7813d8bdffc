"""Whether to ask for the card, and for whom. Tells the keeper; what comes of it is the residency's affair."""

from collections.abc import Callable

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.policy import SessionHolds, SpeedEstimate
from inference.gpu.lease.port import LeaseClient
from inference.runtime.circuit_breaker import CircuitBreaker

MAX_FAILURES, FAILURE_PAUSE_SECS = 3, 60.0
OBSTACLE_SECS = 5.0  # until an obstacle is looked at again
FOREVER = float("inf")


class GpuDemand:
    """``reason`` is why the card is not used, for users; empty when nothing speaks against it."""

    def __init__(
        self, lease_client: LeaseClient, generations: ActiveGenerations, obstacle: Callable[[], str | None]
    ) -> None:
        self.reason = ""
        self.pace = SpeedEstimate()
        self.sessions = SessionHolds()
        # Of stays that ended with the death of the card's runner.
        self.breaker = CircuitBreaker(max_failures=MAX_FAILURES, pause_secs=FAILURE_PAUSE_SECS)
        self._lease_client = lease_client
        self._generations = generations
        self._obstacle = obstacle
        self._asked: tuple[int, frozenset[str]] | None = None
        self._rest_until = 0.0

    def rest(self, until: float) -> None:
        """The others have the card until then; with FOREVER, until there is new work."""
        self._rest_until = max(self._rest_until, until)

    def work_arrived(self, now: float) -> None:
        """New work, or a wish for the card: what spoke against it earlier is asked again."""
        if self._rest_until == FOREVER:
            self._rest_until = 0.0
        if self._asked is None and now >= self._rest_until:
            self.reason = ""

    def ticket(self, now: float) -> int | None:
        """Of the breaker, when the card is to be asked for now."""
        is_held = bool(self.sessions.present(now))
        if now < self._rest_until or not (is_held or self.pace.is_worth_it(self._lives())):
            return None
        obstacle = self._obstacle()
        if obstacle is not None:
            self.reason = obstacle
            self.rest(now + OBSTACLE_SECS)
            return None
        ticket = self.breaker.admit()
        if ticket is None:
            self.reason = f"the GPU runner failed {MAX_FAILURES} times; tried again in {self.breaker.wait_secs:.0f} s"
        return ticket

    def go_on(self, now: float) -> bool:
        """Update the lease request when its priority or sessions changed; False when nothing needs the GPU any more."""
        generations, sessions = self._lives(), self.sessions.present(now)
        if not generations and not sessions:
            return False
        priority = min((generation.priority for generation in generations), default=1)
        asked = (priority, sessions | {generation.session_id for generation in generations if generation.session_id})
        if asked != self._asked:
            self._asked = asked
            self._lease_client.request(priority=priority, session_ids=asked[1])
        return True

    def granted(self) -> None:
        """The next time is a new request."""
        self._asked = None

    def withdraw(self) -> None:
        self._asked, self.reason = None, ""
        self._lease_client.withdraw()

    def _lives(self) -> list[ActiveGeneration]:
        return [generation for generation in self._generations.by_id.values() if generation.stopping is None]
