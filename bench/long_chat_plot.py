"""Two charts under each other, by turn: time to first token, and prompt tokens (in all, computed). Plain SVG."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT, LEFT, GAP = 960, 240, 70, 60


def as_svg(points: Sequence[dict[str, Any]]) -> str:
    """``points`` as ``long_chat`` measures them; grey lines where a new summary came in."""
    folds = [
        after["turn"] for before, after in pairwise(points) if after["summary_version"] > before["summary_version"]
    ]
    charts = [
        _chart(points, folds, 0, "first token, ms", {"first_token_ms": "#1864ab"}),
        _chart(points, folds, HEIGHT + GAP, "prompt tokens", {"n_prompt": "#adb5bd", "n_computed": "#c92a2a"}),
    ]
    total = 2 * HEIGHT + 2 * GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    foot = f'<text x="{LEFT}" y="{total - 15}">turn; vertical lines: a new summary came in</text></svg>'
    return "\n".join([head, *charts, foot, ""])


def _chart(points: Sequence[dict[str, Any]], folds: list[int], top: int, title: str, lines: dict[str, str]) -> str:
    last = int(points[-1]["turn"])
    highest = max([1.0, *(point[name] for point in points for name in lines)])
    bottom = top + 30 + HEIGHT - 30

    def x(turn: int) -> float:
        return LEFT + (WIDTH - LEFT - 20) * (turn - 1) / max(1, last - 1)

    def y(value: float) -> float:
        return float(bottom - (HEIGHT - 30) * value / highest)

    parts = [
        f'<line x1="{x(turn):.1f}" x2="{x(turn):.1f}" y1="{top + 30}" y2="{bottom}" stroke="#dee2e6"/>'
        for turn in folds
    ]
    ticks = ((share * highest, y(share * highest) + 4) for share in (0, 0.5, 1))
    parts += [f'<text x="{LEFT - 8}" y="{at:.1f}" text-anchor="end">{value:,.0f}</text>' for value, at in ticks]
    legend = ", ".join(f'<tspan fill="{colour}">{name}</tspan>' for name, colour in lines.items())
    parts.append(f'<text x="{LEFT}" y="{top + 20}">{title}: {legend}</text>')
    for name, colour in lines.items():
        path = " ".join(f"{x(point['turn']):.1f},{y(point[name]):.1f}" for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
    turns = (1, last // 2, last)
    parts += [f'<text x="{x(turn):.1f}" y="{bottom + 15}" text-anchor="middle">{turn}</text>' for turn in turns]
    return "\n".join(parts)
