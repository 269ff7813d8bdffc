"""Lines of `manage.py status` for a terminal. Names of tenants and owners are other programs' texts."""

from collections.abc import Iterator

from chat.management.service_status import GpuStatus, QueueStatus, RateStatus, RunningAnswer, ServiceStatus
from chat.management.terminal import printable_line


def status_lines(status: ServiceStatus) -> Iterator[str]:
    """Yield the picture; its first line says whether answers can be made."""
    if status.problem:
        yield status.problem
    if model := status.model:
        on = {"cpu": "the CPU", "gpu": "the GPU"}.get(model.device, model.device)
        yield f"{printable_line(model.name)} on {on}, context {model.context_size:,}, worker {model.worker_pid}"
    if status.gpu:
        yield from _gpu(status.gpu, status)
    if status.queue:
        yield _line("Queue", _queue(status.queue))
    if status.rates:
        yield from _rates(status.rates)
    if status.answers:
        yield ""
        yield f"{'Running':36}  {'owner':20} {'since':>8} {'prompt':>7} {'tokens':>7} {'per s':>6}"
        yield from map(_answer, status.answers)


def _line(name: str, text: str) -> str:
    return f"{name:8}{text}"


def _gpu(gpu: GpuStatus, status: ServiceStatus) -> Iterator[str]:
    holder = f"held by {printable_line(gpu.holder)}" if gpu.holder else "not leased"
    if gpu.since:
        secs = (status.time - gpu.since).total_seconds()
        holder += f" since {gpu.since:%H:%M:%S} ({duration(secs)})"
    if gpu.waiting:
        holder += f"; waiting: {', '.join(map(printable_line, gpu.waiting))}"
    yield _line("GPU", f"{printable_line(gpu.name)}, {holder}")
    if gpu.reason:
        yield _line("", printable_line(gpu.reason))
    if gpu.vram_total_mb is not None:
        used = "?" if gpu.vram_used_mb is None else f"{gpu.vram_used_mb:,}"
        yield _line("", f"memory {used} of {gpu.vram_total_mb:,} MB")


def _queue(queue: QueueStatus) -> str:
    text = f"{queue.running} running, {queue.waiting} waiting"
    if queue.waiting_batch:
        text += f" ({queue.waiting_batch} of a batch)"
    return f"{text}, the longest for {duration(queue.longest_wait_s)}" if queue.waiting else text


def _rates(rates: RateStatus) -> Iterator[str]:
    computed = f"{rates.computed_tokens_per_second:,.0f} computed per second of work, prompts included"
    yield _line("Speed", f"{rates.tokens_per_second:,.1f} tokens/s of answers; {computed}")
    cells = f"cells: {rates.cells_used:,} used, {rates.cells_cached:,} cached, {rates.cells_free:,} free"
    yield _line("Cache", f"{rates.cache_hit_ratio:.0%} of recent prompt tokens reused; {cells}")


def _answer(answer: RunningAnswer) -> str:
    rate = f"{answer.tokens / answer.age_s:.1f}" if answer.age_s else ""
    owner = printable_line(answer.owner)
    owner = owner if len(owner) <= 20 else f"{owner[:19]}…"
    since = duration(answer.age_s)
    return f"{answer.id}  {owner:20} {since:>8} {answer.prompt_tokens:7,} {answer.tokens:7,} {rate:>6}"


def duration(secs: float) -> str:
    """Return a time as ``45 s``, ``3 min`` or ``2.5 h``."""
    if secs < 90:
        return f"{secs:.0f} s"
    return f"{secs / 60:.0f} min" if secs < 5400 else f"{secs / 3600:.1f} h"
