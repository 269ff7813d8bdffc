"""When the card is worth asking for, and when it is left. Numbers and clocks; knows no lease, no runner, no frames.

A request asks at once, since nobody knows how long its answer will be. Only one that is sure to be over on the CPU
before the card could help (its ``max_tokens`` say so, at the speeds measured here) does not, so that a classifier's
one-word answers never empty the other program's memory. When an answer ends while the lease is still waited for, the
request is withdrawn; when it ends while the model is being loaded, the load is finished and kept for the linger: the
other program has made room already, and the next question of a conversation comes within seconds more often than not.
"""

from collections.abc import Collection
from dataclasses import dataclass

from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.protocol.frames import Step

WEIGHT = 0.2  # of the newest measurement
# Before anything was measured: a slow CPU, and a card that comes quickly. One-token probes do not ask even then.
UNKNOWN_READ_MS, UNKNOWN_ANSWER_MS, UNKNOWN_CARD_SECS = 5.0, 100.0, 1.0
# After a stay of full length, the others have the card for this part of it before it is asked for again.
REST_PER_HOLD = 0.25
SESSION_SECS = 60.0  # a session of which nobody said how long it keeps the card


@dataclass(frozen=True, kw_only=True)
class GpuPolicy:
    min_hold_secs: float = 5.0
    max_hold_secs: float = 120.0
    linger_secs: float = 10.0
    # Then what has not moved is computed from its tokens: the other program waits.
    yield_patience_secs: float = 2.0

    @property
    def rest_secs(self) -> float:
        return self.max_hold_secs * REST_PER_HOLD

    def reason_to_leave(self, *, held_secs: float, idle_secs: float, is_held: bool) -> str | None:
        """``idle_secs`` since the last answer ended; ``is_held`` by a session."""
        if held_secs >= self.max_hold_secs:
            return f"held for {held_secs:.0f} s (GPU_MAX_HOLD_SECS)"
        if idle_secs >= self.linger_secs and held_secs >= self.min_hold_secs and not is_held:
            return f"no work for {idle_secs:.0f} s (GPU_LINGER_SECS)"
        return None


class SpeedEstimate:
    """How fast the CPU is, and how long the card takes to come; means in which the newest counts a fifth."""

    def __init__(self) -> None:
        self._to_card_secs: float | None = None
        self._read_ms: float | None = None  # per token of a prompt
        self._answer_ms: float | None = None  # per token of an answer, whoever else is answered meanwhile

    def note_step(self, step: Step) -> None:
        if step.n_prefill == 0 and step.n_decode:
            self._answer_ms = _mixed(self._answer_ms, step.step_ms)
        elif step.n_decode == 0 and step.n_prefill > 1:
            self._read_ms = _mixed(self._read_ms, step.step_ms / step.n_prefill)

    def note_card(self, secs: float) -> None:
        self._to_card_secs = _mixed(self._to_card_secs, secs)

    def is_worth_it(self, generations: Collection[ActiveGeneration]) -> bool:
        """Whether any of them may still run on the CPU when the card could be there."""
        to_card_secs = UNKNOWN_CARD_SECS if self._to_card_secs is None else self._to_card_secs
        return any(self._secs_left(generation) > to_card_secs for generation in generations)

    def _secs_left(self, generation: ActiveGeneration) -> float:
        """At most."""
        read_ms, answer_ms = self._read_ms or UNKNOWN_READ_MS, self._answer_ms or UNKNOWN_ANSWER_MS
        n_known = len(generation.prompt) + len(generation.tokens)
        n_to_answer = generation.params.max_tokens - len(generation.tokens)
        return (max(0, n_known - generation.n_read) * read_ms + n_to_answer * answer_ms) / 1000


class SessionHolds:
    """Which sessions keep the card between their requests, and until when."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, float]] = {}  # session -> (secs, until)

    def hold(self, session_id: str, secs: float, now: float) -> None:
        self._held[session_id] = (secs, now + secs)

    def prolong(self, session_id: str, now: float) -> None:
        """One of its answers has ended."""
        secs, _ = self._held.get(session_id, (SESSION_SECS, 0.0))
        self.hold(session_id, secs, now)

    def release(self, session_id: str) -> None:
        if session_id:
            self._held.pop(session_id, None)
        else:
            self._held.clear()

    def present(self, now: float) -> frozenset[str]:
        self._held = {name: (secs, until) for name, (secs, until) in self._held.items() if until > now}
        return frozenset(self._held)


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else (1 - WEIGHT) * old + WEIGHT * new
