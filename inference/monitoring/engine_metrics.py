"""Metrics of the runner's steps: totals since the worker's start, and means over the last half minute.

Knows frames; the worker decides when a report is made and where it goes.
"""

import threading
from collections import deque
from dataclasses import dataclass, fields

import msgspec

from inference.engine.protocol.frames import Step

# Each call of ``report`` closes one; the worker reports every two seconds.
N_BUCKETS = 15


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """Totals outlive the runners of one worker; means cover the last ``N_BUCKETS`` reports."""

    n_steps: int = 0
    n_prefill_tokens: int = 0
    n_decode_tokens: int = 0
    n_cached_tokens: int = 0  # of prompts, reused from the prefix cache
    n_guessed_tokens: int = 0  # draft tokens verified
    n_right_tokens: int = 0  # draft tokens accepted
    mean_step_ms: float = 0.0
    mean_step_sequences: float = 0.0
    mean_step_tokens: float = 0.0
    computed_tokens_per_second: float = 0.0  # per second of computing, prompts included
    cache_hit_ratio: float = 0.0  # of the recent prompt tokens
    n_waiting: int = 0  # sequences in the runner that wait for KV cells
    cells_free: int = 0
    cells_used: int = 0
    cells_cached: int = 0


@dataclass(slots=True)
class _Sums:
    n_steps: int = 0
    n_prefill: int = 0
    n_decode: int = 0
    n_cached: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    n_sequences: int = 0
    step_ms: float = 0.0

    def add(self, other: "_Sums") -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class StepMeter:
    """``add`` is called by the dispatcher's thread, ``report`` by the worker's report thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = _Sums()
        self._open = _Sums()
        self._closed: deque[_Sums] = deque(maxlen=N_BUCKETS)
        self._last: Step | None = None

    def add(self, step: Step) -> None:
        with self._lock:
            sums = self._open
            sums.n_steps += 1
            sums.n_prefill += step.n_prefill
            sums.n_decode += step.n_decode
            sums.n_cached += step.n_cached
            sums.n_drafted += step.n_drafted
            sums.n_accepted += step.n_accepted
            sums.n_sequences += step.n_sequences
            sums.step_ms += step.step_ms
            self._last = step

    def report(self) -> EngineReport:
        with self._lock:
            self._total.add(self._open)
            self._closed.append(self._open)
            self._open = _Sums()
            last = self._last
        total, recent = self._total, _Sums()
        for bucket in self._closed:
            recent.add(bucket)
        n_tokens, n_steps = recent.n_prefill + recent.n_decode, max(1, recent.n_steps)
        return EngineReport(
            n_steps=total.n_steps,
            n_prefill_tokens=total.n_prefill,
            n_decode_tokens=total.n_decode,
            n_cached_tokens=total.n_cached,
            n_guessed_tokens=total.n_drafted,
            n_right_tokens=total.n_accepted,
            mean_step_ms=round(recent.step_ms / n_steps, 2),
            mean_step_sequences=round(recent.n_sequences / n_steps, 2),
            mean_step_tokens=round(n_tokens / n_steps, 2),
            computed_tokens_per_second=round(n_tokens / recent.step_ms * 1000, 1) if recent.step_ms else 0.0,
            cache_hit_ratio=round(recent.n_cached / max(1, recent.n_cached + recent.n_prefill), 3),
            n_waiting=last.n_waiting if last else 0,
            cells_free=last.cells_free if last else 0,
            cells_used=last.cells_used if last else 0,
            cells_cached=last.cells_cached if last else 0,
        )
