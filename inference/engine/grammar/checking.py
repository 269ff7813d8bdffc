"""Check of grammars without a model: what is wrong with one, and in which part of a JSON Schema.

Compiles for a vocabulary of single bytes, which needs neither a model file nor memory. Never raises.
"""

import re
import time
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from inference.engine.grammar.limits import PARSER_LIMITS
from inference.engine.grammar.schema_parts import JsonSchema, Path, part_at, parts_of
from inference.engine.grammar.sources import from_json_schema

MAX_MESSAGE_CHARS = 200
LOCATING_SECS = 0.3  # to find the wrong part; the smallest one found until then is named
REMEMBERED_CHECKS = 256

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
    """Return in one line why no text can be generated with ``grammar``; empty if one can."""
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0, limits=PARSER_LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()  # finds grammars without any text
    if not matcher.is_error():
        return ""
    message = matcher.get_error()
    if message.startswith("NoExtension"):
        return "no text satisfies it"
    parse_error = _PARSE_ERROR.search(message)
    line = parse_error[1] if parse_error else message.removesuffix("<non-verbose/>").strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE_CHARS else f"{line[:MAX_MESSAGE_CHARS]}…"


def schema_problem(schema: JsonSchema) -> tuple[Path, str] | None:
    """Return the path of the smallest part of ``schema`` that cannot be compiled, and the reason; None if all can."""
    message = grammar_problem(from_json_schema(schema))
    if not message:
        return None
    definitions = {"root": _moved(schema)}
    path: Path = ()
    ends_at = time.monotonic() + LOCATING_SECS
    parts = parts_of(schema)
    while (steps := next(parts, None)) is not None and time.monotonic() < ends_at:
        part = (*path, *steps)
        # The part as a schema of its own, which references into the whole still reach.
        pointer = "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in part)
        part_schema = {"$ref": f"#/$defs/root/{pointer}", "$defs": definitions}
        part_message = grammar_problem(from_json_schema(part_schema))
        if part_message:
            path, message = part, part_message
            parts = parts_of(part_at(schema, path))
    return path, message


def _moved(value: Any) -> Any:  # noqa: ANN401  a JSON value
    """Return a schema whose local references point below ``#/$defs/root``."""
    if isinstance(value, list):
        return [_moved(member) for member in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(member) for name, member in value.items()}
    reference = moved.get("$ref")
    if reference == "#" or (isinstance(reference, str) and reference.startswith("#/")):
        moved["$ref"] = f"#/$defs/root{reference[1:]}"
    return moved
