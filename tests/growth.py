"""How the CPU time of a function grows with the length of its input: the same measure on a fast and a slow machine."""

import time
from collections.abc import Callable

# Four times the input: linear work takes four times as long, quadratic work sixteen times.
FACTOR = 4
LINEAR_AT_MOST = 9.0
# Below this a clock tick, or the first call of anything, is a large part.
MEASURABLE_SECS = 0.003
LONGEST_UNITS = 100_000


def grows_linearly(work: Callable[[str], object], text: Callable[[int], str], *, start: int = 500) -> bool:
    """Return whether ``work(text(n))`` takes CPU time proportional to ``n``; ``text`` returns a text of ``n`` units.

    The size is raised until the work can be measured; work that never becomes measurable is linear.
    """
    n = start
    while n <= LONGEST_UNITS:
        seconds = _cpu_secs(work, text(n))
        if seconds >= MEASURABLE_SECS:
            return min(_cpu_secs(work, text(n * FACTOR)) / seconds for _ in range(3)) <= LINEAR_AT_MOST
        n *= FACTOR
    return True


def _cpu_secs(work: Callable[[str], object], text: str) -> float:
    started = time.thread_time()
    work(text)
    return time.thread_time() - started
