"""Values as text for operators: durations, devices, parameters and excerpts."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from inference.models import Generation

EXCERPT_CHARS = 80


def total_ms(generation: Generation) -> float | None:
    """Return the time from the request to the end of its answer."""
    if generation.finished_at is None:
        return None
    return (generation.finished_at - generation.created_at) / timedelta(milliseconds=1)


def tokens_per_second(generation: Generation) -> float | None:
    decode_ms = generation.timings.get("decode")
    if not decode_ms or generation.n_completion_tokens < 2:
        return None
    return float(generation.n_completion_tokens * 1000 / decode_ms)


def device_text(devices: Iterable[Mapping[str, Any]]) -> str:
    """Return the device, or tokens per device in order: ``CPU 12, GPU 140``."""
    parts = [(str(part.get("device", "")).upper(), part.get("tokens", 0)) for part in devices]
    if len(parts) == 1:
        return parts[0][0]
    return ", ".join(f"{name} {tokens}" for name, tokens in parts)


def duration_text(ms: float | None) -> str:
    """Return a duration in milliseconds, seconds or minutes, whichever fits."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds:02d} s"


def shortened(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text[: EXCERPT_CHARS * 4].split())
    return line if len(line) <= EXCERPT_CHARS else f"{line[:EXCERPT_CHARS]}\u2026"


def parameters_text(params: dict[str, Any]) -> str:
    """Return the parameters of a generation as ``name value``, sampling first."""
    params = {name: value for name, value in params.items() if name not in ("cache_tags", "n_shared")}
    flat = {**params.get("sampling", {}), **{name: value for name, value in params.items() if name != "sampling"}}
    return ", ".join(f"{name} {value}" for name, value in flat.items())


def offset_text(secs: float) -> str:
    """Return a place in a recording: ``1:04``, from an hour on ``1:02:04``."""
    minutes, seconds = divmod(int(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
