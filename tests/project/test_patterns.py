"""Every regular expression of the packages takes time in proportion to the text, whoever wrote the text.

A match holds the interpreter's lock: a pattern that is quadratic in a foreign text stops a whole process.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sre_constants as codes
import sre_parse
import time
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import permutations, product
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gemma_project", "chat", "inference", "compat")
N_CHARS, FACTOR = 4000, 4
LINEAR_AT_MOST = 9.0  # times the time for ``FACTOR`` times the length; quadratic patterns take 16 times as long
MEASURABLE_SECS, HOPELESS_SECS = 0.003, 0.3  # nearly all linear patterns take less than the first for N_CHARS
# A text so short that only an exponential pattern takes measurable time.
N_CHARS_TINY, EXPONENTIAL_SECS = 22, 0.02
MAX_CHARS, MAX_PREFIXES = 6, 8  # samples from each pattern
# Modules whose patterns meet no text of a client, a model, a neighbour or an imported file.
NOT_FOREIGN = {
    "inference.engine.backends.fake_script": "the fake model's scripts, which tests alone write",
    "inference.gpu.bridge.command": "the operator's own command line",
}


def modules() -> Iterator[ModuleType]:
    for package in map(importlib.import_module, PACKAGES):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__") and ".migrations" not in found.name:
                yield importlib.import_module(found.name)


def patterns_within(value: object, depth: int = 0) -> Iterator[re.Pattern[str] | re.Pattern[bytes]]:
    """Yield the compiled patterns in a value: itself, members of containers, attributes of classes and instances."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth > 3 or isinstance(value, str | bytes | int | float | ModuleType):
        return
    elif isinstance(value, dict):
        for member in (*value, *value.values()):
            yield from patterns_within(member, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for member in value:
            yield from patterns_within(member, depth + 1)
    elif isinstance(value, type) and value.__module__.startswith(PACKAGES):
        for member in list(vars(value).values()):
            yield from patterns_within(member, depth + 1)
    elif isinstance(value, FunctionType):
        yield from patterns_within((value.__defaults__, inspect.getclosurevars(value).nonlocals), depth)
    elif type(value).__module__.startswith(PACKAGES) and hasattr(value, "__dict__"):
        for member in list(vars(value).values()):
            yield from patterns_within(member, depth + 1)


def inline_patterns(path: Path) -> Iterator[str]:
    """Yield the literal patterns of calls such as ``re.sub(...)`` in a file, and those of string constraints."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name.startswith("re.") and name != "re.escape" and node.args:
            literal = node.args[0]
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str | bytes):
                yield literal.value if isinstance(literal.value, str) else literal.value.decode("latin-1")
        yield from (
            word.value.value
            for word in node.keywords
            if word.arg == "pattern" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
        )


@cache
def all_patterns() -> dict[str, re.Pattern[str]]:
    """Return each pattern once, under its text; those of bytes are read as texts of single bytes."""
    collected: dict[str, re.Pattern[str]] = {}

    def add(text: str | bytes, flags: int) -> None:
        as_text = text if isinstance(text, str) else text.decode("latin-1")
        collected.setdefault(as_text, re.compile(as_text, flags & ~re.UNICODE))

    for module in modules():
        if module.__name__ in NOT_FOREIGN:
            continue
        for name, value in list(vars(module).items()):
            for pattern in patterns_within(value):
                add(pattern.pattern, pattern.flags)
            if name.endswith("PATTERN") and isinstance(value, str):  # of a constraint
                add(value, 0)
        if module.__file__:
            for text in inline_patterns(Path(module.__file__)):
                add(text, 0)
    return collected


def samples(pattern: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Return characters that the pattern mentions, and beginnings of texts that it matches."""
    chars: dict[str, None] = {}
    prefixes: dict[str, None] = {"": None}

    def visit(items: Iterable[tuple[object, Any]], before: str) -> str:
        """Return ``before`` with a text that the items match, and note what is there on the way."""
        for code, value in items:
            match code:
                case codes.LITERAL | codes.NOT_LITERAL:
                    char = chr(value) if code is codes.LITERAL else "a"
                case codes.RANGE:
                    char = chr(value[0])
                case codes.CATEGORY:
                    name = str(value).lower()
                    char = "1" if "_digit" in name else " " if "_space" in name else "a"
                case codes.ANY:
                    char = "a"
                case codes.IN:
                    visited = [visit([item], "") for item in value]
                    before += "a" if value[0][0] is codes.NEGATE else visited[0]
                    continue
                case codes.BRANCH:
                    branches = [visit(branch, before) for branch in value[1]]
                    before = branches[0]
                    continue
                case codes.SUBPATTERN:
                    before = visit(value[3], before)
                    continue
                case codes.ATOMIC_GROUP:
                    before = visit(value, before)
                    continue
                case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
                    least, _, repeated = value
                    for _ in range(max(1, min(least, 4))):
                        before = visit(repeated, before)
                    continue
                case _:  # assertions and references add no character
                    continue
            chars[char] = None
            before += char
            prefixes[before] = None
        return before

    visit(sre_parse.parse(pattern.pattern, pattern.flags).data, "")
    common = [char for char in (" ", "1", "a", "\n") if char in chars]
    ordered = list(dict.fromkeys([*common, *chars]))
    shortest = sorted(prefixes, key=len)
    step = max(1, len(shortest) // MAX_PREFIXES)
    return ordered[:MAX_CHARS] or ["a"], shortest[::step][:MAX_PREFIXES]


def hostile_texts(chars: list[str], prefixes: list[str], n_chars: int) -> Iterator[str]:
    """Yield long runs behind the beginning of a match, in repeated pieces too, with an end that few patterns match."""
    for prefix, char in product(prefixes, chars):
        yield prefix + char * n_chars + "\x00"
        piece = prefix + char * 60
        yield piece * (n_chars // len(piece)) + "\x00"
        for first in chars:
            if first != char:
                yield prefix + first + char * n_chars + "\x00"
    for first, second in permutations(chars, 2):
        yield (first + second) * (n_chars // 2) + "\x00"


def secs(pattern: re.Pattern[str], text: str) -> float:
    """Return CPU seconds of this thread for the searches that the code makes."""
    began = time.thread_time()
    for _ in pattern.finditer(text):
        pass
    pattern.fullmatch(text)
    return time.thread_time() - began


def slow_text(pattern: re.Pattern[str]) -> str | None:
    """Return a text for which the pattern takes more than proportional time, None if none of the hostile ones is."""
    chars, prefixes = samples(pattern)
    for text in hostile_texts(chars, prefixes, N_CHARS_TINY):
        if secs(pattern, text) > EXPONENTIAL_SECS and secs(pattern, text) > EXPONENTIAL_SECS:
            return text
    texts, longer = (hostile_texts(chars, prefixes, n) for n in (N_CHARS, FACTOR * N_CHARS))
    for text, long in zip(texts, longer, strict=True):
        first = secs(pattern, text)
        if first < MEASURABLE_SECS:
            continue
        if first > HOPELESS_SECS:
            return text
        least = min(secs(pattern, text) for _ in range(3))
        if least >= MEASURABLE_SECS and min(secs(pattern, long) for _ in range(3)) > LINEAR_AT_MOST * least:
            return text
    return None


def test_the_walk_finds_patterns_of_every_kind(tmp_path: Path) -> None:
    patterns = all_patterns()
    assert len(patterns) > 60
    assert any("-->" in text for text in patterns), "of a module"
    assert any("User|Assistant" in text for text in patterns), "of a class"
    module = tmp_path / "module.py"
    module.write_text('import re\n\n\ndef cut(text):\n    return re.sub(r"a+b", "", re.escape(text))\n')
    assert list(inline_patterns(module)) == ["a+b"], "within a function"


@pytest.mark.parametrize("text", [r"x*y", r"(a+)+b", r"\s+$", r"(?:a|b|ab)*c"])
def test_a_quadratic_pattern_is_noticed(text: str) -> None:
    assert slow_text(re.compile(text)) is not None


@pytest.mark.parametrize("text", [r"\w+", r"<[^<>]{1,60}>", r"[^\[`\n]+", r"(?<!\w)\d{1,3}(?!\d)", r"(?<!\s)\s++$"])
def test_a_linear_pattern_is_not(text: str) -> None:
    assert slow_text(re.compile(text)) is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_pattern_is_linear_in_hostile_texts() -> None:
    slow = {text: found[:40] for text, pattern in all_patterns().items() if (found := slow_text(pattern)) is not None}
    assert slow == {}
