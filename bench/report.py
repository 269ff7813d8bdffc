"""Medians, spread and ratios of the rounds; printed as a table, kept as JSON, drawn as SVG."""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path


@dataclass
class Row:
    """One measure. ``ours`` and ``theirs`` hold one value per round; the aim is a bound on ours / theirs."""

    name: str
    unit: str
    aim: float
    at_least: bool = False
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def is_reached(self) -> bool:
        return self.ratio >= self.aim if self.at_least else self.ratio <= self.aim


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def as_table(rows: list[Row]) -> str:
    lines = ["| measure | ours | llama-server | ratio | aim | |", "|---|---|---|---|---|---|"]
    for row in rows:
        sign = ">=" if row.at_least else "<="
        verdict = "reached" if row.is_reached else "NOT reached"
        cells = [f"{row.name} ({row.unit})", spread(row.ours), spread(row.theirs), f"{row.ratio:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{sign} {row.aim:g}", verdict]) + " |")
    return "\n".join(lines)


def save(rows: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = [asdict(row) | {"ratio": row.ratio, "reached": row.is_reached} for row in rows]
    (folder / "bench.json").write_text(json.dumps(plain, indent=2) + "\n")
    (folder / "bench.svg").write_text(as_svg(rows))


def as_svg(rows: list[Row]) -> str:
    """One bar a measure: ours as a share of theirs, with the aim as a line. Above 2 it is cut."""
    width, left, step = 900, 420, 30
    scale: Callable[[float], float] = lambda ratio: left + min(ratio, 2.0) / 2.0 * (width - left - 80)  # noqa: E731
    height = step * (len(rows) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20">ours / llama-server, median of rounds; the mark is the aim</text>',
    ]
    for number, row in enumerate(rows, start=1):
        y = step * number + 8
        colour = "#2b8a3e" if row.is_reached else "#c92a2a"
        parts += [
            f'<text x="10" y="{y + 14}">{escape(row.name)}</text>',
            f'<rect x="{left}" y="{y}" width="{scale(row.ratio) - left:.1f}" height="18" fill="{colour}"/>',
            f'<line x1="{scale(row.aim):.1f}" x2="{scale(row.aim):.1f}" y1="{y - 3}" y2="{y + 21}" stroke="black"/>',
            f'<text x="{scale(row.ratio) + 6:.1f}" y="{y + 14}">{row.ratio:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
