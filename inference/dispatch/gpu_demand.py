"""Demand for the GPU: whether to request the lease, with which priority and sessions. Knows no GPU states.

The lease is requested at once, since the length of an answer is unknown; except for an answer that is sure to end on
the CPU before the GPU is ready (by its ``max_tokens``, at the measured speeds): one-word answers of a classifier must
not evict the other tenant.

When the last answer ends while the request waits, the request is withdrawn. When it ends while the model is being
loaded, the load is finished and the GPU held for the linger time: the other tenant has left already, and the next
question of a conversation usually comes within seconds.
"""

from collections.abc import Callable, Collection

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.protocol.frames import Step
from inference.gpu.lease.port import LeaseClient
from inference.runtime.circuit_breaker import CircuitBreaker

MAX_FAILURES, FAILURE_PAUSE_SECS = 3, 60.0
OBSTACLE_SECS = 5.0  # until an obstacle is checked again
UNTIL_NEW_WORK = float("inf")
WEIGHT = 0.2  # of the newest measurement
# Assumed before anything was measured: a slow CPU and a quick GPU. One-token probes request nothing even then.
DEFAULT_PREFILL_MS, DEFAULT_DECODE_MS, DEFAULT_GPU_SECS = 5.0, 100.0, 1.0
SESSION_SECS = 60.0  # the hold of a session that named no duration


class SpeedEstimate:
    """Speeds of the CPU and the time until the GPU is ready, as means in which the newest sample counts a fifth."""

    def __init__(self) -> None:
        self._to_gpu_secs: float | None = None
        self._prefill_ms: float | None = None  # per token
        self._decode_ms: float | None = None  # per token of an answer, beside all others

    def note_step(self, step: Step) -> None:
        if step.n_prefill == 0 and step.n_decode:
            self._decode_ms = _moving_average(self._decode_ms, step.step_ms)
        elif step.n_decode == 0 and step.n_prefill > 1:
            self._prefill_ms = _moving_average(self._prefill_ms, step.step_ms / step.n_prefill)

    def note_session_start(self, secs: float) -> None:
        """``secs``: from the request until the runner was ready."""
        self._to_gpu_secs = _moving_average(self._to_gpu_secs, secs)

    def is_gpu_worthwhile(self, generations: Collection[ActiveGeneration]) -> bool:
        """Return whether any generation may still run on the CPU when the GPU could be ready."""
        to_gpu_secs = DEFAULT_GPU_SECS if self._to_gpu_secs is None else self._to_gpu_secs
        return any(self.cpu_secs_left(generation) > to_gpu_secs for generation in generations)

    def cpu_secs_left(self, generation: ActiveGeneration) -> float:
        """Return an upper bound of the time until the generation would end on the CPU."""
        prefill_ms, decode_ms = self._prefill_ms or DEFAULT_PREFILL_MS, self._decode_ms or DEFAULT_DECODE_MS
        n_known = len(generation.prompt) + len(generation.tokens)
        n_to_decode = generation.params.max_tokens - len(generation.tokens)
        return (max(0, n_known - generation.prefill.n_computed) * prefill_ms + n_to_decode * decode_ms) / 1000


class SessionHolds:
    """Sessions that hold the GPU between their requests, with the end of each hold."""

    def __init__(self) -> None:
        self._holds: dict[str, tuple[float, float]] = {}  # session -> (secs, until)

    def hold(self, session_id: str, secs: float, now: float) -> None:
        self._holds[session_id] = (secs, now + secs)

    def prolong(self, session_id: str, now: float) -> None:
        """Begin the hold anew: a generation of the session has ended."""
        secs, _ = self._holds.get(session_id, (SESSION_SECS, 0.0))
        self.hold(session_id, secs, now)

    def release(self, session_id: str) -> None:
        if session_id:
            self._holds.pop(session_id, None)
        else:
            self._holds.clear()

    def current(self, now: float) -> frozenset[str]:
        self._holds = {name: (secs, until) for name, (secs, until) in self._holds.items() if until > now}
        return frozenset(self._holds)


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


def _moving_average(old: float | None, new: float) -> float:
    return new if old is None else (1 - WEIGHT) * old + WEIGHT * new
