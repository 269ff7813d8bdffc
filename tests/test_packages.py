"""Rules for the packages that no linter checks: module docstrings, and an engine that reads no environment."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("gemma_project", "chat", "inference", "compat")


def python_files(room: str) -> list[Path]:
    return [p for p in sorted((PROJECT / room).rglob("*.py")) if "migrations" not in p.parts]


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


def test_llama_cpp_is_not_loaded_before_a_model_is() -> None:
    """Else neither the web process with the fake model nor `make test-fast` would do without a build of it."""
    modules = "inference.worker.worker, inference.engine.process.runner, chat.services.turns"
    code = f"import sys, django; django.setup(); import {modules}; sys.exit('llama_cpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
