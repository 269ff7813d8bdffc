"""Outcomes of ``bench.remember``, a JSON line for each conversation, way and setting, and the table of all of them."""

import hashlib
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.remember_data import Talk

PLAIN, FACTS_ALONE = "plain", "facts alone"
HEADINGS = (
    "context",
    "turns",
    "way",
    "conversations",
    "right",
    "of plain view",
    "of the best",
    "unanswerable refused",
    "turns uncovered",
    "first token p50 / p95 ms",
    "computed per new p50 / p90",
    "time with summaries",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run that its outcomes depend on. ``label`` names a variant of the code, ``is_direct`` a run without
    the service around the model."""

    model: str
    context: int
    pause: float | None = None  # seconds; None: the conversation is stored at once
    summary_at: str = ""
    label: str = ""
    is_direct: bool = False

    @property
    def turns(self) -> str:
        if self.is_direct:
            return "stored, model alone"
        return "stored" if self.pause is None else f"{self.pause:g} s apart"

    def key(self, way: str, talk: Talk) -> str:
        """Identify an outcome: another script, model or setting has another key."""
        parts = [asdict(self), way, asdict(talk)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


@dataclass(kw_only=True)
class Outcome:
    """Answers to the questions of one conversation, and the cost of its turns where they were played."""

    key: str
    way: str
    language: str
    seed: int
    settings: Settings
    right: int = 0
    n_facts: int = 0
    refused: int = 0
    n_unanswerable: int = 0
    uncovered_turns: int = 0  # with messages that are in neither prompt nor summary nor searched
    left_out_turns: int = 0  # with messages in neither prompt nor summary
    first_token_ms: list[float] = field(default_factory=list)
    computed_per_new: list[float] = field(default_factory=list)
    n_computed: list[int] = field(default_factory=list)
    summary_share: float = 0.0  # of the time of the turns, in which a summary was computed
    answers: list[dict[str, Any]] = field(default_factory=list)
    summary: str = ""
    summary_note: str = ""

    @property
    def conversation(self) -> tuple[str, str, int]:
        return self.settings.model, self.language, self.seed


def append(path: Path, outcome: Outcome) -> None:
    """Append a line; it replaces a last one that a kill cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(outcome), ensure_ascii=False) + "\n"
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode())


def load(path: Path) -> list[Outcome]:
    """Return the outcomes of a file, none without one; of a line that was cut short there is none."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [Outcome(**row | {"settings": Settings(**row["settings"])}) for row in rows]


def table(outcomes: Iterable[Outcome]) -> str:
    """Return a row for each model, variant, context, pause and way.

    ``of plain view`` compares with the answers to the same conversations with all of it in the prompt, ``of the best``
    with the way that has most right answers to each of them.
    """
    rows = list(outcomes)
    best: dict[tuple[str, str, int], int] = {}
    for row in rows:
        if row.way != FACTS_ALONE:
            best[row.conversation] = max(best.get(row.conversation, 0), row.right)
    plain = {row.conversation: row.right for row in rows if row.way == PLAIN}
    groups: dict[tuple[Settings, str], list[Outcome]] = {}
    for row in rows:
        groups.setdefault((row.settings, row.way), []).append(row)
    lines: list[str] = []
    heading = ""
    for settings, way in sorted(groups, key=_order):
        former, heading = heading, f"{settings.model} {settings.label} {settings.summary_at}".strip()
        if heading != former:
            lines += ["", heading, "", _line(HEADINGS), f"{'|---' * len(HEADINGS)}|"]
        lines.append(_line(_cells(way, groups[settings, way], plain, best)))
    return "\n".join(lines)


def _order(group: tuple[Settings, str]) -> tuple[Any, ...]:
    settings, way = group
    return settings.model, settings.label, settings.summary_at, settings.context, settings.turns, way


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cells(
    way: str,
    rows: Sequence[Outcome],
    plain: dict[tuple[str, str, int], int],
    best: dict[tuple[str, str, int], int],
) -> list[object]:
    settings = rows[0].settings
    right, n_facts = sum(row.right for row in rows), sum(row.n_facts for row in rows)
    refused, n_unanswerable = sum(row.refused for row in rows), sum(row.n_unanswerable for row in rows)
    return [
        settings.context,
        settings.turns,
        way,
        len(rows),
        f"{right}/{n_facts} ({right / max(1, n_facts):.0%})",
        _share(rows, plain),
        _share(rows, best),
        f"{refused}/{n_unanswerable}",
        *_costs(rows),
    ]


def _share(rows: Sequence[Outcome], compared: dict[tuple[str, str, int], int]) -> str:
    rows = [row for row in rows if row.conversation in compared]
    total = sum(compared[row.conversation] for row in rows)
    return f"{sum(row.right for row in rows) / total:.2f}" if total else "-"


def _costs(rows: Sequence[Outcome]) -> list[str]:
    times = sorted(ms for row in rows for ms in row.first_token_ms)
    if not times:
        return ["-"] * 4
    ratios = sorted(ratio for row in rows for ratio in row.computed_per_new)
    return [
        str(sum(row.uncovered_turns for row in rows)),
        f"{statistics.median(times):,.0f} / {times[int(len(times) * 0.95)]:,.0f}",
        f"{statistics.median(ratios):.2f} / {ratios[int(len(ratios) * 0.9)]:.2f}",
        f"{statistics.mean(row.summary_share for row in rows):.0%}",
    ]
