"""Drawn JSON Schemas: every answer under one validates, drafts on and off, whole and continued at any token.

The model's logits are random. A longer search: GEMMA_RANDOM_SCHEMAS=200.
"""

import json
import os
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig
from inference.engine.grammar.sources import from_json_schema
from inference.runtime.grammar_check import schema_problem
from tests.engine.conftest import REAL_SLOTS
from tests.engine.harness import Harness, fake_config
from tests.engine.random_model import RandomBackend

N_EXAMPLES = int(os.environ.get("GEMMA_RANDOM_SCHEMAS", "40"))
MAX_TOKENS = 700
PROMPT = [2, 10, 11]

NAMES = st.text("ab", min_size=1, max_size=2)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text('xy"\\\n\u00e9\U0001f600', max_size=3)
LITERALS = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(NAMES, SCALARS, max_size=2)
PATTERNS = st.sampled_from(["^a+$", "b|c", "^[x-z]{2,5}$", "\\d"])
FORMATS = st.sampled_from(["date", "date-time", "uuid", "ipv4", "time", "password"])


def kind(name: str, **keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of one type with any of the keywords."""
    return st.fixed_dictionaries({"type": st.just(name)}, optional=keywords)


LEAVES = st.one_of(
    kind("null"),
    kind("boolean"),
    kind("string", minLength=st.integers(0, 3), pattern=PATTERNS),
    kind("string", minLength=st.integers(0, 3), maxLength=st.integers(3, 9)),
    kind("string", format=FORMATS),
    kind("integer", minimum=st.integers(-300, 7), exclusiveMaximum=st.integers(8, 4000)),
    kind("integer", multipleOf=st.sampled_from([2, 7])),
    kind("number", exclusiveMinimum=st.sampled_from([-1.5, 0]), maximum=st.sampled_from([0.25, 12])),
    st.fixed_dictionaries({"enum": st.lists(LITERALS, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"const": LITERALS}),
)


def combined(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    named = st.dictionaries(NAMES, inner, max_size=3)
    closed = st.sampled_from([False, True, {"type": "null"}])
    some, names = st.lists(inner, min_size=1, max_size=3), st.lists(NAMES, unique=True, max_size=2)
    return st.one_of(
        kind("array", items=inner, minItems=st.integers(0, 2), maxItems=st.integers(2, 4)),
        kind("array", prefixItems=some, items=st.just(False)),
        kind("object", properties=named, additionalProperties=closed, required=names),
        kind("object", patternProperties=st.dictionaries(st.just("^[ab]$"), inner), additionalProperties=closed),
        st.fixed_dictionaries({"anyOf": some}),
        st.fixed_dictionaries({"allOf": st.lists(inner, min_size=2, max_size=2)}),
    )


SCHEMAS = st.recursive(LEAVES, combined, max_leaves=6)


@pytest.mark.real_model
@pytest.mark.slow
@settings(
    max_examples=max(4, N_EXAMPLES // 10), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(SCHEMAS, st.integers(0, 2**31))
def test_the_real_model_obeys(
    real_backend: LlamaBackend, real_config: EngineConfig, schema: dict[str, Any], seed: int
) -> None:
    if schema_problem(schema) is not None:
        return
    for slot in range(REAL_SLOTS):
        real_backend.remove(slot)
    harness = Harness(real_backend, real_config)
    harness.ask("a", "Make something up.", grammar=from_json_schema(schema), temperature=1.0, seed=seed, max_tokens=150)
    harness.run()
    if harness.ended("a").reason == "stop":
        jsonschema.validate(json.loads(harness.text("a")), schema)


def answered(schema: dict[str, Any], seed: int, *, drafts: bool, emitted: list[int]) -> tuple[list[int], str]:
    """The tokens of an answer, after those of an earlier runner, and why it ended."""
    config = fake_config(draft_max=8 if drafts else 0, batch_size=32)
    backend = RandomBackend(seed=seed, n_cells=4096, n_slots=8, batch_size=32, max_outputs=16)
    harness = Harness(backend, config)
    while drafts and harness.loop.work_while_idle():
        pass
    options: dict[str, Any] = {"temperature": 1.0, "seed": seed, "max_tokens": MAX_TOKENS}
    harness.submit("a", PROMPT, emitted=emitted, grammar=from_json_schema(schema), **options)
    harness.run()
    return [*emitted, *harness.tokens("a")], harness.ended("a").reason


@settings(max_examples=N_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=N_EXAMPLES < 100)
@given(SCHEMAS, st.integers(0, 2**31), st.booleans(), st.floats(0, 1))
def test_every_answer_validates(schema: dict[str, Any], seed: int, drafts: bool, part: float) -> None:
    if schema_problem(schema) is not None:
        return  # contradicts itself: refused before it is stored
    tokens, reason = answered(schema, seed, drafts=drafts, emitted=[])
    text = bytes(token - 5 for token in tokens).decode("utf-8", "replace")
    if reason == "stop":
        jsonschema.validate(json.loads(text), schema)
    else:
        assert len(tokens) == MAX_TOKENS, (schema, text)
    # Another runner continues with the same draws, with or without drafts.
    emitted = tokens[: int(part * (len(tokens) - 1))]
    assert answered(schema, seed, drafts=not drafts, emitted=emitted)[0] == tokens
