"""The time of one answer as bars on a common axis, from the stored figures of its generation and its search.

Stages follow one another, but the wait for the GPU, the load of its model and the move there, which pass while the CPU
answers: their lengths are measured, and their places are the earliest possible.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from chat.admin.common.formatting import duration_text
from inference.models import Generation

AXIS = 1000.0
LEAST_WIDTH = 4.0  # of a stage that took no visible time


@dataclass(frozen=True)
class Stage:
    """A bar from ``x`` of ``width`` on an axis of 1000 units; ``name`` is a class of the style sheet."""

    name: str
    label: str
    text: str
    x: str
    width: str


@dataclass(frozen=True)
class _Span:
    name: str
    label: str
    start_ms: float
    length_ms: float
    note: str = ""


def waterfall(generation: Generation, search_ms: float | None) -> list[Stage]:
    """Return the stages in the order of their beginning; none for an answer that has not ended."""
    if generation.finished_at is None:
        return []
    whole_ms = _ms(generation.finished_at - generation.created_at)
    spans = [span for span in _spans(generation, whole_ms, search_ms) if span.length_ms > 0]
    longest = max([span.start_ms + span.length_ms for span in spans], default=0.0)
    if not longest:
        return []
    scale = AXIS / max(longest, whole_ms)
    stages = []
    for span in spans:
        width = max(LEAST_WIDTH, span.length_ms * scale)
        x = min(span.start_ms * scale, AXIS - width)
        text = span.note or duration_text(span.length_ms)
        stages.append(Stage(span.name, span.label, text, f"{x:.1f}", f"{width:.1f}"))
    return stages


def _spans(generation: Generation, whole_ms: float, search_ms: float | None) -> Iterator[_Span]:
    times: dict[str, float] = {name: float(ms or 0.0) for name, ms in generation.timings.items()}
    queued_ms = _ms((generation.queued_at or generation.created_at) - generation.created_at)
    if search_ms:
        yield _Span("search", "memories", 0.0, search_ms)
    yield _Span("queue", "queue", queued_ms, times.get("queue", 0.0))
    at = queued_ms + times.get("queue", 0.0)
    gpu_at = at
    for name, label in (("gpu_wait", "GPU wait"), ("load", "model load"), ("restore", "cache restore")):
        length_ms = times.get(name, 0.0)
        yield _Span(name, label, gpu_at, length_ms)
        gpu_at += length_ms
    # Without a wait for the GPU, the load came before the prompt; with one, the CPU had begun meanwhile.
    if not times.get("gpu_wait"):
        at = gpu_at
    yield _Span("prefill", "prompt", at, times.get("prefill", 0.0))
    first_token_ms = times.get("first_token", 0.0)
    yield _Span("first_token", "first token", at, first_token_ms)
    decode_at = at + first_token_ms
    yield _Span("decode", "answer", decode_at, times.get("decode", 0.0))
    yield from _device_spans(generation, decode_at, max(times.get("decode", 0.0), whole_ms - decode_at))


def _device_spans(generation: Generation, start_ms: float, length_ms: float) -> Iterator[_Span]:
    """Yield the answer's parts by device, in proportion to their tokens, when it moved."""
    parts = [(str(part.get("device")), part.get("tokens")) for part in generation.devices]
    counts = [(device, n) for device, n in parts if isinstance(n, int) and n > 0]
    n_tokens = sum(n for _, n in counts)
    if len(counts) < 2:
        return
    for device, n in counts:
        part_ms = length_ms * n / n_tokens
        name = "gpu" if "gpu" in device else "cpu"
        yield _Span(name, f"on the {name.upper()}", start_ms, part_ms, f"{n:,} tokens")
        start_ms += part_ms


def _ms(length: timedelta) -> float:
    return length / timedelta(milliseconds=1)
