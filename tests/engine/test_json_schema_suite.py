"""The official JSON Schema Test Suite against the masks: which schemas compile, and which instances they let through.

Whole texts, byte by byte, over a vocabulary of single bytes: the masks of other vocabularies come from the same parser.
"""

import json
from collections import Counter
from itertools import permutations
from pathlib import Path
from typing import Any

from llguidance import LLMatcher

from inference.engine.grammar.limits import PARSER_LIMITS
from inference.engine.grammar.schema_parts import part_at
from inference.engine.grammar.sources import from_json_schema
from inference.runtime.grammar_check import byte_tokenizer, schema_problem

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "json_schema_suite" / "draft2020_12.json").read_text()
)
PROBLEMS = [schema_problem(case["schema"]) for case in CASES]
SUPPORTED = [case for case, problem in zip(CASES, PROBLEMS, strict=True) if problem is None]


def accepts(schema: Any, instance: object) -> bool:  # noqa: ANN401  a JSON value
    matcher = LLMatcher(byte_tokenizer(), from_json_schema(schema), log_level=0, limits=PARSER_LIMITS)
    text = list(json.dumps(instance, ensure_ascii=False).encode())
    return matcher.try_consume_tokens(text) == len(text) and matcher.is_accepting()


def instances_of(cases: list[dict[str, Any]], *, valid: bool) -> list[tuple[dict[str, Any], str, Any]]:
    return [
        (case, description, instance)
        for case in cases
        for description, instance, is_valid in case["tests"]
        if is_valid is valid
    ]


def test_the_number_of_supported_cases() -> None:
    """The numbers in the documentation; more is better."""
    assert (len(CASES), sum(len(case["tests"]) for case in CASES)) == (383, 1299)
    n_tests = sum(len(case["tests"]) for case in SUPPORTED)
    assert (len(SUPPORTED), n_tests) == (178, 668)


def test_no_instance_is_let_through_that_is_not_valid() -> None:
    wrong = [
        (case["description"], description)
        for case, description, instance in instances_of(SUPPORTED, valid=False)
        if accepts(case["schema"], instance)
    ]
    assert wrong == []


def test_valid_instances_that_are_refused_have_another_form_of_the_same_value() -> None:
    """Properties in the order of the schema, whole numbers without a fraction, formats asserted."""
    refused = Counter(
        reason_for(case, instance)
        for case, _, instance in instances_of(SUPPORTED, valid=True)
        if not accepts(case["schema"], instance)
    )
    assert refused["unknown"] == 0
    assert refused.total() <= 22


def reason_for(case: dict[str, Any], instance: object) -> str:
    if case["file"] == "format":
        return "format"
    if ".0" in json.dumps(instance):
        return "fraction"
    if isinstance(instance, dict):
        orders = (dict(members) for members in permutations(instance.items()))
        if any(accepts(case["schema"], order) for order in orders):
            return "order"
    return "unknown"


def test_what_is_not_supported_is_named() -> None:
    for case, problem in zip(CASES, PROBLEMS, strict=True):
        if problem is not None:
            path, message = problem
            assert message
            assert part_at(case["schema"], path) is not None
