"""Medians, spread and ratios of the rounds; printed as a table, kept as JSON, drawn as SVG."""

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

MOST = 4.0  # the end of the plot's scale


@dataclass
class Row:
    """A measure. ``ours`` and ``theirs`` hold one value per round; the aim is a bound on ours / theirs."""

    name: str
    unit: str
    aim: float
    at_least: bool = False
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median of the rounds' own: in each, the two were measured one right after the other."""
        return statistics.median(ratios(self))

    @property
    def is_reached(self) -> bool:
        return self.ratio >= self.aim if self.at_least else self.ratio <= self.aim


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def spread(values: list[float]) -> str:
    found = figure(statistics.median(values))
    return found if len(values) == 1 else f"{found} ({figure(min(values))} to {figure(max(values))})"


def as_table(rows: list[Row]) -> str:
    lines = ["| measure | ours | theirs | ours / theirs | aim | |", "|---|---|---|---|---|---|"]
    for row in rows:
        sign = ">=" if row.at_least else "<="
        verdict = "reached" if row.is_reached else "not reached"
        cells = [f"{row.name} ({row.unit})", spread(row.ours), spread(row.theirs), f"{row.ratio:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{sign} {row.aim:g}", verdict]) + " |")
    return "\n".join(lines)


def save(rows: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = [asdict(row) | {"ratio": row.ratio, "reached": row.is_reached} for row in rows]
    (folder / "bench.json").write_text(json.dumps(plain, indent=2) + "\n")
    (folder / "bench.svg").write_text(as_svg(rows))


def ratios(row: Row) -> list[float]:
    """Round by round, so that both had the same machine."""
    return [ours / theirs for ours, theirs in zip(row.ours, row.theirs, strict=False)]


def as_svg(rows: list[Row]) -> str:
    """Draw a bar per measure on a logarithmic scale: left of 1 ours is less; the whisker is the spread."""
    width, left, right, step = 960, 330, 150, 30
    low, high = math.log(0.02), math.log(MOST)
    scale: Callable[[float], float] = lambda ratio: (  # noqa: E731
        left + (min(max(math.log(ratio), low), high) - low) / (high - low) * (width - left - right)
    )
    height = step * (len(rows) + 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20">ours / theirs: bar the median, line the rounds from lowest to highest, black mark the '
        "aim; green is reached</text>",
    ]
    for tick in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
        x, weight = scale(tick), 2 if tick == 1.0 else 1
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{step}" y2="{height - step}" stroke="#ccc" stroke-width="{weight}"/>',
            f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle" fill="#555">{tick:g}</text>',
        ]
    for number, row in enumerate(rows, start=1):
        parts += _bar(row, step * number + 8, scale)
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, y: int, scale: Callable[[float], float]) -> list[str]:
    colour, sign = "#2b8a3e" if row.is_reached else "#c92a2a", ">=" if row.at_least else "<="
    of_rounds = ratios(row) or [row.ratio]
    one, here, aim = scale(1.0), scale(row.ratio), scale(row.aim)
    least, most = scale(min(of_rounds)), scale(max(of_rounds))
    verdict = f"{row.ratio:.3g} (aim {sign} {row.aim:g})"
    return [
        f'<text x="10" y="{y + 14}">{escape(row.name)}</text>',
        f'<rect x="{min(one, here):.1f}" y="{y + 3}" width="{abs(here - one):.1f}" height="12" fill="{colour}"/>',
        f'<line x1="{least:.1f}" x2="{most:.1f}" y1="{y + 9}" y2="{y + 9}" stroke="#555" stroke-width="2"/>',
        f'<line x1="{aim:.1f}" x2="{aim:.1f}" y1="{y - 2}" y2="{y + 20}" stroke="black" stroke-width="2"/>',
        f'<text x="{scale(MOST) + 8:.1f}" y="{y + 14}" fill="{colour}">{escape(verdict)}</text>',
    ]
