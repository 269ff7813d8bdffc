"""A result counts as run for the same row, round and code; the table shows other codes apart."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.faults import results
from tests.faults.results import Result, Results, code_of, read, table

WEB, BROKER = "tests/faults/test_web.py", "tests/faults/test_broker.py"
TEST = f"{WEB}::test_three_kills"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with a page, a service and two files of rows."""
    files = [part if "." in part else f"{part}/a.py" for part in (*results.SERVICE, *results.BREAKERS)]
    for name in [*files, "docs/faults.md", "inference/worker/claim_runner.py", "tests/faults/breaking.py", WEB, BROKER]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(results, "PROJECT", tmp_path)
    results._digest_of.cache_clear()
    return tmp_path


def result(**changes: object) -> Result:
    usual = Result("23", TEST, 0, True, 1.5, "kill -9", "whole", "c0ffee", code_of(TEST), {"pause_secs": 1})
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "is_other"),
    [
        ("docs/faults.md", False),
        (BROKER, False),
        (WEB, True),
        ("inference/worker/claim_runner.py", True),
        ("requirements.txt", True),
        ("tests/faults/breaking.py", True),
        ("tests/live_stack.py", True),
    ],
)
def test_what_makes_other_code_of_it(changed: str, is_other: bool, project: Path) -> None:
    before = code_of(TEST)
    (project / changed).write_text("something else")
    results._digest_of.cache_clear()
    assert (code_of(TEST) != before) is is_other


def test_only_what_passed_with_this_code_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "var" / "faults.jsonl"
    written = Results(path)
    for each in (result(), result(round=1, passed=False), result(round=2, code="other")):
        written.add(each)
    again = Results(path)
    assert [again.has_passed(TEST, number) for number in range(4)] == [True, False, False, False]
    assert not again.has_passed(f"{BROKER}::test_three_kills", 0)


def test_results_from_before_there_were_codes_can_be_read_and_count_for_none(tmp_path: Path) -> None:
    path, old = tmp_path / "faults.jsonl", dataclasses.asdict(result())
    del old["code"]
    path.write_text(json.dumps(old) + "\n")
    assert [each.code for each in read(path)] == [""]
    assert not Results(path).has_passed(TEST, 0)


def test_the_table_counts_other_code_apart() -> None:
    found = [result(round=number, seen={"pause_secs": number}) for number in range(3)]
    line = table([result(code="other", passed=False), result(code="other"), *found]).splitlines()[-1]
    assert line == (
        "| 23 | `test_web.py::test_three_kills` | kill -9 | whole | 3 of 3 (1 of 2 on other code) | pause_secs 0 to 2 |"
    )
