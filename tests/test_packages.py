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


# What takes 0.1 s or more to import, and is of no use to a command that shows a state or begins an answer.
SLOW_TO_IMPORT = (
    "daphne",
    "drf_spectacular",
    "httpx",
    "numpy",
    "onnxruntime",
    "openai",
    "psycopg",
    "requests",
    "rest_framework.compat",
    "twisted",
    "chat.admin",
    "chat.api",
    "chat.rag.search.hybrid",
    "chat.recall.search",
    "gemma_project.urls",
    "inference.dispatch",
    "inference.engine.core",
    "inference.worker",
)


@pytest.mark.parametrize("command", ["ask", "status"])
def test_a_command_imports_little_before_it_begins(command: str) -> None:
    """Each of them is a part of the time before the first token."""
    code = f"""
import sys
sys.argv = ["manage.py", {command!r}]
import django
django.setup()
import manage, chat.management.commands.{command}
from inference.config.tokenizer import get_tokenizer
get_tokenizer()
print(*(name for name in {SLOW_TO_IMPORT!r} if name in sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
