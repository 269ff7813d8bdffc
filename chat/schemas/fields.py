"""Fields that take a JSON value as it is or refuse it: nothing is converted from one type into another.

DRF's own fields read "0.5" as a number, 1 as true and 7 as text; programs then learn of their mistakes late.
"""

import math
import uuid
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

MAX_METADATA_DEPTH = 8
MAX_CHARS = 2**26  # beyond what a body may have
MAX_LOGIT_BIASES = 1024
MAX_TOKEN_ID = 2**31 - 1


class Text(serializers.CharField):
    """A string, untrimmed. NUL and lone surrogates are refused by DRF's own validators: no database keeps them."""

    default_error_messages = {"invalid": "must be a string", "blank": "must not be empty"}

    def __init__(self, *, max_length: int = MAX_CHARS, allow_blank: bool = False, required: bool = True) -> None:
        super().__init__(max_length=max_length, allow_blank=allow_blank, required=required, trim_whitespace=False)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


# bool is a kind of int in Python, hence the second half of each condition below.


class Integer(serializers.IntegerField):
    default_error_messages = {"invalid": "must be a whole number"}

    def to_internal_value(self, data: object) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class Number(serializers.FloatField):
    """A finite number; JSON has no NaN, but Python's parser takes it, and 1e999 becomes infinity."""

    default_error_messages = {"invalid": "must be a number", "not_finite": "must be a finite number"}

    def to_internal_value(self, data: object) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool):
            self.fail("invalid")
        # A whole number of 400 digits is no float at all.
        if abs(data) > 1e300 or not math.isfinite(data):
            self.fail("not_finite")
        return float(data)


class Truth(serializers.BooleanField):
    default_error_messages = {"invalid": "must be true or false"}

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class Choice(serializers.ChoiceField):
    default_error_messages = {"invalid_choice": "must be one of {choices}"}

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(f'"{choice}"' for choice in self.choices))
        return data


class TextList(serializers.ListField):
    """Some strings, none of them empty."""

    default_error_messages = {"not_a_list": "must be a list of strings", "max_length": "at most {max_length} entries"}

    def __init__(self, *, max_chars: int, max_length: int) -> None:
        super().__init__(child=Text(max_length=max_chars), max_length=max_length, required=False)

    def to_internal_value(self, data: object) -> list[str]:
        if not isinstance(data, list):
            self.fail("not_a_list")
        values: list[str] = super().to_internal_value(data)
        return values


class Identifier(serializers.Field[uuid.UUID | str, Any, str, Any]):
    """The id of something stored. Text that is no UUID names nothing, which is for the lookup to say (404)."""

    default_error_messages = {"invalid": "must be a string"}

    def to_internal_value(self, data: object) -> uuid.UUID | str:
        if not isinstance(data, str):
            self.fail("invalid")
        return as_uuid(data) or data

    def to_representation(self, value: object) -> str:
        return str(value)


def as_uuid(text: str) -> uuid.UUID | None:
    """The UUID written as ``text`` in the one form that this service gives out, or None."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    # uuid.UUID also takes braces, urn:uuid: and missing hyphens.
    return value if str(value) == text.lower() else None


class LogitBias(serializers.Field[dict[int, float | None], Any, Any, Any]):
    """Token id -> addend; ``false`` or null forbids the token. An object, or a list of pairs as llama-server has it."""

    default_error_messages = {
        "invalid": "must be an object of token ids and numbers, or a list of [token id, number]",
        "too_many": f"at most {MAX_LOGIT_BIASES} entries",
    }

    def to_internal_value(self, data: object) -> dict[int, float | None]:
        pairs = list(data.items()) if isinstance(data, dict) else data
        if not isinstance(pairs, list):
            self.fail("invalid")
        if len(pairs) > MAX_LOGIT_BIASES:
            self.fail("too_many")
        return dict(self._pair(pair) for pair in pairs)

    def to_representation(self, value: object) -> object:
        return value

    def _pair(self, pair: object) -> tuple[int, float | None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            self.fail("invalid")
        token, bias = pair
        # Only digits: int() would also read "1_000", " 7 " and other scripts' digits.
        if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 10:
            token = int(token)
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token <= MAX_TOKEN_ID:
            self.fail("invalid")
        if bias is False or bias is None:
            return token, None
        return token, Number(min_value=-1e6, max_value=1e6).run_validation(bias)


def is_storable(value: object, depth: int = MAX_METADATA_DEPTH) -> bool:
    """Whether a JSON value can be kept by every database: finite numbers, whole characters, not nested too deeply."""
    if depth < 0:
        return False
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int | float):
        return abs(value) < 1e300
    if isinstance(value, Mapping):
        return all(is_storable(part, depth - 1) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(is_storable(part, depth - 1) for part in value)
    return value is None
