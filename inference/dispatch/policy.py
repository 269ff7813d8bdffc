"""Policy of the GPU: when the lease is worth a request, and when it is given up. Knows no lease and no runner.

The lease is requested at once, since the length of an answer is unknown. The exception is an answer that is sure to end
on the CPU before the GPU could help (by its ``max_tokens``, at the measured speeds): one-word answers of a classifier
must not evict the other tenant. When an answer ends while the request waits, the request is withdrawn; when it ends
while the model is being loaded, the load is finished and the GPU kept for the linger: the other tenant has made room
already, and the next question of a conversation usually comes within seconds.
"""

from collections.abc import Collection
from dataclasses import dataclass

from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.protocol.frames import Step

WEIGHT = 0.2  # of the newest measurement
# Assumed before anything was measured: a slow CPU and a quick GPU. One-token probes request nothing even then.
DEFAULT_PREFILL_MS, DEFAULT_DECODE_MS, DEFAULT_GPU_SECS = 5.0, 100.0, 1.0
# After a session of full length, other tenants have the GPU for this part of it.
REST_PER_HOLD = 0.25
SESSION_SECS = 60.0  # the hold of a session that named no duration


@dataclass(frozen=True, kw_only=True)
class GpuPolicy:
    min_hold_secs: float = 5.0
    max_hold_secs: float = 120.0
    linger_secs: float = 10.0
    # After it, sequences that have not moved are computed from their tokens: the other tenant waits.
    yield_patience_secs: float = 2.0

    @property
    def rest_secs(self) -> float:
        return self.max_hold_secs * REST_PER_HOLD

    def reason_to_leave(self, *, held_secs: float, idle_secs: float, is_held: bool) -> str | None:
        """``idle_secs``: since the last answer ended; ``is_held``: by a session."""
        if held_secs >= self.max_hold_secs:
            return f"held for {held_secs:.0f} s (GPU_MAX_HOLD_SECS)"
        if idle_secs >= self.linger_secs and held_secs >= self.min_hold_secs and not is_held:
            return f"no work for {idle_secs:.0f} s (GPU_LINGER_SECS)"
        return None


class SpeedEstimate:
    """Speeds of the CPU and the time until the GPU is ready, as means in which the newest sample counts a fifth."""

    def __init__(self) -> None:
        self._to_gpu_secs: float | None = None
        self._prefill_ms: float | None = None  # per token
        self._decode_ms: float | None = None  # per token of an answer, beside all others

    def note_step(self, step: Step) -> None:
        if step.n_prefill == 0 and step.n_decode:
            self._decode_ms = _mixed(self._decode_ms, step.step_ms)
        elif step.n_decode == 0 and step.n_prefill > 1:
            self._prefill_ms = _mixed(self._prefill_ms, step.step_ms / step.n_prefill)

    def note_session_start(self, secs: float) -> None:
        """``secs``: from the request until the runner was ready."""
        self._to_gpu_secs = _mixed(self._to_gpu_secs, secs)

    def is_gpu_worthwhile(self, generations: Collection[ActiveGeneration]) -> bool:
        """Whether any generation may still run on the CPU when the GPU could be ready."""
        to_gpu_secs = DEFAULT_GPU_SECS if self._to_gpu_secs is None else self._to_gpu_secs
        return any(self._secs_left(generation) > to_gpu_secs for generation in generations)

    def _secs_left(self, generation: ActiveGeneration) -> float:
        """Upper bound of the time until the end on the CPU."""
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


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - WEIGHT) * old + WEIGHT * new
