"""Progress bar of a long command, on stderr; redirected to a file it prints a line every 10 s or more."""

import sys
from typing import Any

from tqdm import tqdm


def bar(*, total: float, unit: str, **options: Any) -> tqdm:  # noqa: ANN401  the options of tqdm
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        unit=unit,
        dynamic_ncols=True,
        mininterval=0.1 if is_terminal else 10.0,
        maxinterval=1.0 if is_terminal else 30.0,
        smoothing=0.1,
        **options,
    )
