"""Grammars whose compilation would overflow the stack, take minutes or gigabytes: refused, and the process goes on."""

import json
import signal
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from inference.engine.grammar.sources import from_json_schema, from_lark, from_regex
from inference.runtime import grammar_check
from inference.runtime.grammar_check import SHORT_BYTES, compile_problem, grammar_problem, schema_problem

Form = Callable[[dict[str, Any]], dict[str, Any]]

REFERENCES: dict[str, Form] = {
    "items": lambda inner: {"items": inner},
    "properties": lambda inner: {"properties": {"x": inner}},
    "prefixItems": lambda inner: {"prefixItems": [inner]},
    "patternProperties": lambda inner: {"patternProperties": {"^x": inner}},
    "additionalProperties": lambda inner: {"additionalProperties": inner},
    "anyOf": lambda inner: {"anyOf": [inner, {"type": "null"}]},
    "allOf": lambda inner: {"allOf": [inner]},
    "alone": lambda inner: inner,
    "nested": lambda inner: {"items": {"items": {"items": {"items": inner}}}},
}


def chain(form: Form, n: int) -> dict[str, Any]:
    """A schema of n definitions, each of which refers to the next."""
    definitions: dict[str, Any] = {f"a{i}": form({"$ref": f"#/$defs/a{i + 1}"}) for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": definitions | {f"a{n}": {"type": "null"}}}


def terminals(n: int) -> str:
    return "start: T0\n" + "".join(f'T{i}: "x" T{i + 1}\n' for i in range(n)) + f'T{n}: "y"\n'


@pytest.mark.parametrize("form", REFERENCES.values(), ids=REFERENCES)
def test_a_long_chain_of_references(form: Form) -> None:
    problem = schema_problem(chain(form, 3000))
    assert problem is not None
    assert problem[1] == "its references or terminals are nested too deeply"
    assert grammar_problem(from_json_schema(chain(form, 40))) == ""


@pytest.mark.parametrize(
    "text",
    [
        terminals(4000),
        "start: %json " + json.dumps(chain(REFERENCES["nested"], 1000)),
        terminals(4500).replace("T", "t"),
    ],
    ids=["terminals", "a schema", "rules"],
)
def test_a_deep_text(text: str) -> None:
    assert grammar_problem(from_lark(text)) == "its references or terminals are nested too deeply"


def test_a_few_terminals_after_each_other() -> None:
    assert grammar_problem(from_lark(terminals(100))) == ""


@pytest.mark.parametrize("regex", ["a?" * 30_000, r"\w?" * 6_000])
def test_an_expression_that_takes_too_long(regex: str) -> None:
    grammar = from_regex(regex)
    assert grammar_problem(grammar) == "it takes too long to compile"
    assert grammar_problem(from_regex("b" * 2 * SHORT_BYTES)) == ""


@pytest.mark.parametrize(
    "grammar",
    [
        from_json_schema({"type": "integer"}),
        from_json_schema({"type": "nothing"}),
        from_json_schema({"enum": []}),
        from_json_schema({"properties": {"é\u2028\n": {"pattern": "("}}}),
        from_regex("(ab)+"),
        from_lark("start: missing"),
        from_lark('start: "\U0001f600"'),
    ],
)
def test_both_processes_find_the_same(grammar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_check, "SHORT_BYTES", 0)
    grammar_check._checked.cache_clear()
    assert grammar_problem(grammar) == compile_problem(grammar)


def long_regex(number: int) -> str:
    """A grammar that no test has checked before."""
    return from_regex(f"{number}" + "c" * 2 * SHORT_BYTES)


def test_a_child_that_was_killed_is_replaced() -> None:
    assert grammar_problem(long_regex(1)) == ""
    [child] = [
        child for child in psutil.Process().children() if any("grammar_check" in word for word in child.cmdline())
    ]
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    assert grammar_problem(long_regex(2)) == ""


def test_a_check_that_the_machine_had_no_time_for_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    grammar = from_regex("a?" * 29_000)
    with monkeypatch.context() as patch:
        patch.setattr(grammar_check, "WALL_SECS", 0.02)
        assert grammar_problem(grammar) == "the check was not finished in time"
    assert grammar_problem(grammar) == "it takes too long to compile"
