"""The rooms of docs/architecture.md: imports run one way, and every file says what it owns."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("gemma_project", "chat", "inference")
FORBIDDEN = {
    "inference/engine": ("django", "redis", "celery", "channels", "rest_framework", "chat", "gemma_project"),
    "inference": ("chat", "channels", "rest_framework"),
}


def python_files(room: str) -> list[Path]:
    return [p for p in sorted((PROJECT / room).rglob("*.py")) if "migrations" not in p.parts]


def imported_modules(path: Path) -> set[str]:
    """Every module named in an import statement anywhere in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return names


def belongs_to(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_imports_run_one_way(room: str) -> None:
    files = python_files(room)
    assert files, f"no Python files below {room}: the walk looks in the wrong place"
    wrong = [
        f"{path.relative_to(PROJECT)} imports {module}"
        for path in files
        for module in imported_modules(path)
        for package in FORBIDDEN[room]
        if belongs_to(module, package)
    ]
    assert wrong == []


def test_the_engine_knows_nothing_of_the_inference_room_around_it() -> None:
    wrong = [
        f"{path.relative_to(PROJECT)} imports {module}"
        for path in python_files("inference/engine")
        for module in imported_modules(path)
        if belongs_to(module, "inference") and not belongs_to(module, "inference.engine")
    ]
    assert wrong == []


def test_the_engine_does_not_read_the_environment() -> None:
    wrong = []
    for path in python_files("inference/engine"):
        attributes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        reads = [node for node in attributes if node.attr in {"environ", "getenv", "environb"}]
        wrong += [f"{path.relative_to(PROJECT)}:{node.lineno}" for node in reads]
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_what_it_owns(room: str) -> None:
    silent = [
        str(path.relative_to(PROJECT))
        for path in python_files(room)
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_stand_at_the_top(room: str) -> None:
    """An import inside a function usually breaks a cycle that should not exist."""
    wrong = []
    for path in python_files(room):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                wrong += [f"{path.relative_to(PROJECT)}:{n.lineno}" for n in inner]
    assert wrong == []
