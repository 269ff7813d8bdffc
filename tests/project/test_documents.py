"""The documents refer to files and functions that exist, and every decision has its parts and a line in the index."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TESTS = PROJECT / "tests"
DECISIONS = PROJECT / "docs" / "decisions"
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
# In a decision a path stands for a file or folder of the project.
SOURCE = re.compile(r"`((?:chat|compat|docs|gemma_project|inference|tests|tools)/[\w./-]+)`")
CODE = re.compile(r"`[^`]*`")
# Files that the recipes make.
NEW = {"chat/api/time_view.py", "tests/api/test_time.py"}
# Rows of the three tables "step or process | files | functions | ..." in the map.
PATH_ROW = re.compile(r"^\| [a-z ]+ \| ((?:`[\w/]+\.py`(?:, )?)+) \| ((?:`[\w.]+`(?:, )?)+) \|", re.MULTILINE)
N_PATH_ROWS = 11 + 9 + 13
PARTS = ("Context", "Decision", "Measurement", "Consequence")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_named_source_exists(page: Path) -> None:
    names = SOURCE.findall(page.read_text(encoding="utf-8"))
    assert [
        name for name in names if name not in NEW and not (PROJECT / name).exists() and not (TESTS / name).exists()
    ] == []


def functions_of(file: str) -> set[str]:
    """Return the functions of a file, methods as Class.name."""
    body = ast.parse((PROJECT / file).read_text(encoding="utf-8")).body
    names = {
        f"{node.name}.{method.name}"
        for node in body
        if isinstance(node, ast.ClassDef)
        for method in functions(node.body)
    }
    return names | {node.name for node in functions(body)}


def functions(body: list[ast.stmt]) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_the_paths_of_a_turn_and_of_a_token_name_functions_that_exist() -> None:
    rows = PATH_ROW.findall((PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(rows) == N_PATH_ROWS
    for files, names in rows:
        defined = {file: functions_of(file) for file in re.findall(r"`([^`]+)`", files)}
        named = set(re.findall(r"`([^`]+)`", names))
        assert named - set().union(*defined.values()) == set()
        assert [file for file in defined if not named & defined[file]] == []


@pytest.mark.parametrize("page", sorted(DECISIONS.glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_has_its_parts_and_its_line_in_the_index(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [part for part in PARTS if f"**{part}.**" not in text] == []
    title = text.splitlines()[0].removeprefix(f"# {page.stem[:4]}. ")
    assert f"[{page.stem[:4]}]({page.name}) {title}" in (DECISIONS / "README.md").read_text(encoding="utf-8")


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(page.stem[:4]) for page in sorted(DECISIONS.glob("0*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
