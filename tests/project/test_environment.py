"""Parsing of environment variables: what is taken, what is refused, and that a refusal names name and value."""

import pytest

from gemma_project.environment import Environment, SettingError
from inference.engine.config import KvType


def test_an_empty_variable_counts_as_unset() -> None:
    assert Environment({"GEMMA_PORT": "  "}).integer("GEMMA_PORT", 8001, minimum=1, maximum=65_535) == 8001


@pytest.mark.parametrize("value", ["8001x", "80.5", "0", "70000", "-1", "1_000 000"])
def test_a_bad_number_is_named_with_its_value_and_bounds(value: str) -> None:
    with pytest.raises(SettingError) as caught:
        Environment({"GEMMA_PORT": value}).integer("GEMMA_PORT", 8001, minimum=1, maximum=65_535)
    assert str(caught.value) == f"GEMMA_PORT={value!r}: expected a whole number from 1 to 65535"


def test_choices_are_listed() -> None:
    with pytest.raises(SettingError, match="GEMMA_KV_TYPE_V='q5': expected one of f16, q8_0, q4_0"):
        Environment({"GEMMA_KV_TYPE_V": "q5"}).choice("GEMMA_KV_TYPE_V", KvType.F16)
