"""Figures: numbers and groups of numbers by name, which are added up; histograms among them give percentiles.

A histogram counts values in buckets that grow by a fixed factor, so that sums of histograms are exact, and a percentile
is off by half of that factor at most.
"""

import math
from collections.abc import Mapping
from typing import Any

Figures = dict[str, Any]

BUCKET_FACTOR = 1.1
BELOW_ONE = "0"  # bucket of the values up to 1
MAX_NAMED = 200  # numbers kept of a group by name


def observe(histogram: Figures, value: float) -> None:
    """Count a value in a histogram."""
    bucket = BELOW_ONE if value <= 1 else str(math.ceil(math.log(value, BUCKET_FACTOR)))
    histogram[bucket] = histogram.get(bucket, 0) + 1


def percentile(histogram: Mapping[str, int], share: float) -> float | None:
    """Return the value below which this share (0 to 1) of all values lies; None for an empty histogram."""
    n_values = sum(histogram.values())
    n_below = 0
    for bucket, n in sorted((int(name), n) for name, n in histogram.items()):
        n_below += n
        if n_below >= share * n_values:
            return BUCKET_FACTOR ** (bucket - 0.5) if bucket else 0.5
    return None


def add(total: Figures, figures: Mapping[str, Any]) -> None:
    """Add numbers to the numbers of the same name, groups to groups."""
    for name, value in figures.items():
        # A check against the abstract class takes most of the time of a year's sums.
        if type(value) is dict:
            add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def largest(group: Mapping[str, float], n: int = MAX_NAMED) -> dict[str, float]:
    """Return the ``n`` largest numbers of a group, the largest first."""
    return dict(sorted(group.items(), key=lambda item: (-item[1], item[0]))[:n])
