"""Progress bar of a long command, on stderr where that is a terminal; a log file gets none."""

from typing import Any

from tqdm import tqdm


def bar(*, total: float, unit: str, **options: Any) -> tqdm:  # noqa: ANN401  the options of tqdm
    return tqdm(total=total, unit=unit, dynamic_ncols=True, maxinterval=1.0, smoothing=0.1, disable=None, **options)
