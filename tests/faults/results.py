"""What every run of a fault row came to, one JSON line each, written as it comes so that an interrupted run resumes.

``python -m tests.faults.results FILE`` prints a table by row.
"""

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """``row`` is the number of the promise; ``seen`` what the test measured or counted."""

    row: str
    test: str
    round: int
    passed: bool
    secs: float
    injected: str
    expected: str
    commit: str
    seen: dict[str, Any] = field(default_factory=dict)


class Results:
    """A file of results; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.commit = _commit() if path else ""
        self._passed = {
            (result.test, result.round) for result in read(path) if result.passed and result.commit == self.commit
        }

    def has_passed(self, test: str, round_number: int) -> bool:
        """Whether an earlier run of this very commit got through it."""
        return (test, round_number) in self._passed

    def add(self, result: Result) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path | None) -> list[Result]:
    if path is None or not path.exists():
        return []
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def table(results: list[Result]) -> str:
    """One line a row: how often it was run and passed, and the worst that was seen of each number."""
    by_row: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_row[result.row, result.test.removeprefix("tests/faults/")].append(result)
    lines = ["| row | test | injected | expected | passed | seen |", "|---|---|---|---|---|---|"]
    for (row, test), found in sorted(by_row.items(), key=lambda item: (float(item[0][0]), item[0][1])):
        passed = f"{sum(result.passed for result in found)} of {len(found)}"
        last = found[-1]
        seen = ", ".join(
            f"{name} {_span([each.seen[name] for each in found if name in each.seen])}" for name in last.seen
        )
        lines.append(f"| {row} | `{test}` | {last.injected} | {last.expected} | {passed} | {seen} |")
    return "\n".join(lines)


def _span(values: list[Any]) -> str:
    if all(isinstance(value, int | float) for value in values) and len(set(values)) > 1:
        return f"{min(values)} to {max(values)}"
    return str(values[-1])


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.stdout.write(table(read(Path(sys.argv[1]))) + "\n")
