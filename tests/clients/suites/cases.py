"""The cases of a foreign suite: how each ended, and those that a file leaves out with the reason."""

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Cases that this service cannot pass. ``cases`` are names in which ``*`` stands for any text.

    ``may_pass``: a model's words decide, which near ties change from run to run.
    """

    reason: str
    cases: tuple[str, ...]
    may_pass: bool = False

    def pattern_of(self, name: str) -> str | None:
        """Return the first pattern that the name matches."""
        matching = (
            case for case in self.cases if re.fullmatch(re.escape(case).replace(r"\*", ".*"), name, flags=re.DOTALL)
        )
        return next(matching, None)


def left_out(file: Path) -> list[LeftOut]:
    """Read a file of ``[[left_out]]`` tables with ``reason`` and ``cases``."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))["left_out"]
    return [
        LeftOut(reason=table["reason"], cases=tuple(table["cases"]), may_pass=table.get("may_pass", False))
        for table in tables
    ]


def outcomes(report: Path) -> dict[str, str]:
    """Return ``passed``, ``failed`` or ``skipped`` for each case of a JUnit report of pytest."""
    results: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  our own pytest wrote it
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = f"{case.get('classname')}.{case.get('name')}"
        # A case whose end fails is reported a second time.
        results[name] = "failed" if results.get(name) == "failed" else outcome
    return results


def verdict(suite: str, results: Mapping[str, str], exceptions: list[LeftOut]) -> int:
    """Print the table of a suite. Returns 1 if a case fails that no reason names, or a reason names only cases that
    pass."""
    unexplained, failures_of = [], Counter[str]()
    reasons = Counter[str]()
    for name, outcome in results.items():
        patterns = ((exception.reason, exception.pattern_of(name)) for exception in exceptions)
        reason, pattern = next(((reason, pattern) for reason, pattern in patterns if pattern), ("", None))
        if outcome != "failed":
            continue
        if pattern is None:
            unexplained.append(name)
        else:
            failures_of[pattern] += 1
            reasons[reason] += 1
    steady = (exception for exception in exceptions if not exception.may_pass)
    stale = [case for exception in steady for case in exception.cases if not failures_of[case]]
    counts = Counter(results.values())
    lines = [f"  {count:3} left out: {reason}" for reason, count in reasons.items()]
    lines += [f"  FAILED: {name}" for name in unexplained]
    lines += [f"  left out although nothing fails: {case}" for case in stale]
    totals = f"{len(results)} cases, {counts['passed']} passed, {counts['skipped']} skipped by the suite"
    sys.stdout.write("\n".join([f"{suite}: {totals}, {sum(reasons.values())} left out", *lines]) + "\n")
    return 1 if unexplained or stale or not counts["passed"] else 0
