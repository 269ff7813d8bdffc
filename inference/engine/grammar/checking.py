"""Check of grammars without a model: what is wrong with one, and in which part of a JSON Schema.

Compiles for a vocabulary of single bytes, which needs neither a model file nor memory. Never raises.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from inference.engine.grammar.limits import PARSER_LIMITS
from inference.engine.grammar.sources import JsonSchema, from_json_schema

MAX_MESSAGE_CHARS = 200
MAX_LOCATING_STEPS = 200  # compilations to find the wrong part
REMEMBERED_CHECKS = 256

Path = tuple[str | int, ...]

# Keywords with schemas below them: by name, one, or in a list.
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
_SINGLE = ("items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")
_LISTED = ("prefixItems", "items", "allOf", "anyOf", "oneOf")
_PARSE_ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)


class _ByteVocabulary:
    """The 256 bytes and an end, as llguidance reads a vocabulary. No token has a name, so that no grammar names one."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode("utf-8", "replace") if isinstance(text, str) else text)


@lru_cache(maxsize=1)
def byte_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_ByteVocabulary()), n_vocab=257, eos_token=256, slices=[])


@lru_cache(maxsize=REMEMBERED_CHECKS)
def grammar_problem(grammar: str) -> str:
    """Return why no text can be generated with ``grammar``; empty if one can."""
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0, limits=PARSER_LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()  # finds grammars without any text
    return _readable(matcher.get_error()) if matcher.is_error() else ""


def schema_problem(schema: JsonSchema) -> tuple[Path, str] | None:
    """Return the path of the smallest part of ``schema`` that cannot be compiled, and the reason; None if all can."""
    message = grammar_problem(from_json_schema(schema))
    if not message:
        return None
    path: Path = ()
    steps = iter(range(MAX_LOCATING_STEPS))
    while True:
        for child, _ in zip(_parts(schema, path), steps, strict=False):
            child_message = grammar_problem(from_json_schema(_alone(schema, child)))
            if child_message:
                path, message = child, child_message
                break
        else:
            return path, message


def _alone(root: JsonSchema, path: Path) -> JsonSchema:
    """Return the part at ``path`` as a schema of its own, which references into ``root`` still reach."""
    pointer = "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return {"$ref": f"#/$defs/root/{pointer}", "$defs": {"root": _moved(root)}}


def _moved(value: Any) -> Any:  # noqa: ANN401  a JSON value
    """Return a schema whose local references point below ``#/$defs/root``."""
    if isinstance(value, list):
        return [_moved(member) for member in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(member) for name, member in value.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = f"#/$defs/root{reference[1:]}"
    return moved


def _parts(root: JsonSchema, path: Path) -> Iterator[Path]:
    """Yield the paths of the schemas directly below the one at ``path``, definitions last."""
    schema: Any = root
    for step in path:
        schema = schema[step]
    if not isinstance(schema, dict):
        return
    for keyword in _SINGLE:
        if isinstance(schema.get(keyword), dict | bool):
            yield (*path, keyword)
    for keyword in _LISTED:
        listed = schema.get(keyword)
        yield from ((*path, keyword, index) for index in range(len(listed) if isinstance(listed, list) else 0))
    for keyword in _NAMED:
        named = schema.get(keyword)
        yield from ((*path, keyword, name) for name in (named if isinstance(named, dict) else ()))


def _readable(message: str) -> str:
    """Return the compiler's message in one line."""
    if message.startswith("NoExtension"):
        return "no text satisfies it"
    parse_error = _PARSE_ERROR.search(message)
    line = parse_error[1] if parse_error else message.removesuffix("<non-verbose/>").strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE_CHARS else f"{line[:MAX_MESSAGE_CHARS]}…"
