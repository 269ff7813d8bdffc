"""Results of fault rows, one JSON line for each run, written at once so that an interrupted run resumes.

A result is valid for the code that it was measured with: changed pages and tests of other rows do not invalidate it.
``python -m tests.faults.results FILE`` prints a table by row.
"""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
# The source of the service under test and of the faults.
SERVICE = ("chat", "gemma_project", "inference", "manage.py", "requirements.txt", "constraints.txt")
BREAKERS = (
    "tests/faults",
    "tests/api/live.py",
    "tests/api/test_stream_faults.py",
    "tests/live_stack.py",
    "tests/private_environment.py",
)


@dataclass(frozen=True)
class Result:
    """``row`` is the number of the promise; ``seen`` holds the measurements of the test."""

    row: str
    test: str
    round: int
    passed: bool
    secs: float
    injected: str
    expected: str
    commit: str
    code: str = ""
    seen: dict[str, Any] = field(default_factory=dict)


class Results:
    """A file of results; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.commit = _commit() if path else ""
        self._passed = {(result.test, result.round, result.code) for result in read(path) if result.passed}

    def has_passed(self, test: str, round_number: int) -> bool:
        """Return whether an earlier run of the same code passed."""
        return (test, round_number, code_of(test)) in self._passed

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


def code_of(test: str) -> str:
    """Return a short digest of the service's source, of the faults, and of the file of this test (a pytest id)."""
    return _digest_of(test.partition("::")[0])


@cache
def _digest_of(test_file: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for part in (*SERVICE, *BREAKERS) for path in _files(PROJECT / part)):
        name = path.relative_to(PROJECT).as_posix()
        # The tests of other rows do not run in this one.
        if name == test_file or not name.startswith("tests/faults/test_"):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _files(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter([path])


def table(results: list[Result]) -> str:
    """Return a table line for each row: runs passed with this code and with others, and its range of measurements."""
    by_row: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_row[result.row, result.test.removeprefix("tests/faults/")].append(result)
    lines = ["| row | test | injected | expected | passed | seen |", "|---|---|---|---|---|---|"]
    for (row, test), found in sorted(by_row.items(), key=lambda item: (float(item[0][0]), item[0][1])):
        here = [result.passed for result in found if result.code == code_of(found[-1].test)]
        passed = f"{sum(here)} of {len(here)}"
        if others := len(found) - len(here):
            passed += f" ({sum(result.passed for result in found) - sum(here)} of {others} on other code)"
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
    output = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return output.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.stdout.write(table(read(Path(sys.argv[1]))) + "\n")
