"""Charts as plain values: bars or lines in a box of 1000 by 200 units, which the template draws as SVG.

Each chart is a table as well, for readers who do not see it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

WIDTH, HEIGHT = 1000.0, 200.0
BAR_SHARE = 0.8  # of the width of a step
GRID_LINES = 2

Values = Sequence[float | None]


class Form(Enum):
    BARS = "bars"  # one on top of the other
    LINES = "lines"


@dataclass(frozen=True)
class Series:
    """Values by step; ``colour`` is the number of a class of the style sheet."""

    name: str
    values: Values
    colour: int


@dataclass(frozen=True)
class Bar:
    x: str
    y: str
    width: str
    height: str
    colour: int


@dataclass(frozen=True)
class Line:
    path: str
    colour: int


@dataclass(frozen=True)
class Column:
    """The strip of one step: its place, its label, and all values as text."""

    x: str
    width: str
    label: str
    texts: tuple[str, ...]

    @property
    def tip(self) -> str:
        return "\n".join((self.label, *self.texts))


@dataclass(frozen=True)
class Chart:
    """``scale``: labels of the vertical axis from top to bottom; ``ends``: of the horizontal one."""

    title: str
    series: tuple[Series, ...]
    note: str
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    scale: tuple[str, ...]
    ends: tuple[str, ...]
    is_empty: bool

    @property
    def rows(self) -> list[tuple[str, tuple[str, ...]]]:
        """The table's rows: steps that have a value, the newest first."""
        return [(column.label, column.texts) for column in reversed(self.columns) if any(column.texts)]


def chart(
    title: str,
    form: Form,
    labels: Sequence[str],
    series: Sequence[tuple[str, Values]],
    *,
    text: Callable[[float], str] = "{:,.0f}".format,
    note: str = "",
    least_top: float = 1.0,
) -> Chart:
    """Lay out the series; ``text`` writes a value, and ``least_top`` is the least upper end of the scale."""
    drawn = tuple(Series(name, values, number) for number, (name, values) in enumerate(series))
    top = nice_top(max(least_top, _highest(form, drawn, len(labels))))
    step_width = WIDTH / max(1, len(labels))
    return Chart(
        title=title,
        series=drawn,
        note=note,
        bars=_bars(drawn, top, step_width) if form is Form.BARS else (),
        lines=tuple(Line(_path(one.values, top, step_width), one.colour) for one in drawn if form is Form.LINES),
        columns=tuple(
            Column(_number(index * step_width), _number(step_width), label, _texts(drawn, index, text))
            for index, label in enumerate(labels)
        ),
        scale=tuple(text(top * share / GRID_LINES) for share in range(GRID_LINES, -1, -1)),
        ends=(labels[0], labels[len(labels) // 2], labels[-1]) if labels else (),
        is_empty=not any(value for one in drawn for value in one.values),
    )


def nice_top(value: float) -> float:
    """Return 1, 2, 4 or 10 times a power of ten, not below ``value``."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 4, 10) if power * factor >= value * 0.999)


def _highest(form: Form, series: Sequence[Series], n_steps: int) -> float:
    combine = sum if form is Form.BARS else max
    return max((combine([one.values[index] or 0.0 for one in series]) for index in range(n_steps)), default=0.0)


def _bars(series: Sequence[Series], top: float, step_width: float) -> tuple[Bar, ...]:
    bars = []
    floors: dict[int, float] = {}
    for one in series:
        for index, value in enumerate(one.values):
            if not value:
                continue
            height = value / top * HEIGHT
            floors[index] = floors.get(index, HEIGHT) - height
            x = (index + (1 - BAR_SHARE) / 2) * step_width
            width = step_width * BAR_SHARE
            bars.append(Bar(_number(x), _number(floors[index]), _number(width), _number(height), one.colour))
    return tuple(bars)


def _path(values: Values, top: float, step_width: float) -> str:
    """Return the path of a line with gaps; a value without neighbours is a short stroke."""
    parts: list[str] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        x, y = _number((index + 0.5) * step_width), _number(HEIGHT - value / top * HEIGHT)
        follows = index > 0 and values[index - 1] is not None
        is_followed = index + 1 < len(values) and values[index + 1] is not None
        parts.append(f"{'L' if follows else 'M'}{x} {y}")
        if not follows and not is_followed:
            parts.append(f"h{_number(step_width / 4)}")
    return "".join(parts)


def _texts(series: Sequence[Series], index: int, text: Callable[[float], str]) -> tuple[str, ...]:
    values = [(one.name, one.values[index]) for one in series]
    if not any(value for _, value in values):
        return ()
    return tuple(f"{name}: {'-' if value is None else text(value)}" for name, value in values)


def _number(value: float) -> str:
    # Not localised, and short: a page has some thousands of them.
    return f"{value:.1f}".removesuffix(".0")
