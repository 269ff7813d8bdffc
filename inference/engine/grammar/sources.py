"""Grammars from what requests bring: JSON Schemas, regular expressions, Lark texts. Pure; compiles nothing.

A grammar is a text in llguidance's JSON form. It is a parameter of its sequence, so that each runner compiles it anew.
"""

import json
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from inference.engine.grammar.schema_parts import JsonSchema, without_annotations

# One space, or a line break with indentation: free white space would let a weak model write nothing else.
WHITESPACE = r"( |\n[ \t]{0,32})"
ANY_OBJECT = {"type": "object"}


def from_json_schema(schema: JsonSchema, *, lenient: bool = False) -> str:
    """Return the grammar of the JSON texts that ``schema`` accepts, see ``with_options``."""
    return LLMatcher.grammar_from_json_schema(json.dumps(with_options(schema, lenient=lenient)))


def with_options(schema: JsonSchema, *, lenient: bool = False) -> dict[str, Any]:
    """Return ``schema`` with the compiler's options, in place of any that it brings itself.

    ``lenient``: keywords that are not implemented are ignored, and ``oneOf`` is read as ``anyOf``.
    """
    members = {} if schema is True else {"enum": []} if schema is False else without_annotations(schema)
    return members | {
        "x-guidance": {"whitespace_pattern": WHITESPACE, "lenient": lenient, "coerce_one_of": lenient},
    }


def from_regex(regex: str) -> str:
    """Return the grammar of the texts that ``regex`` matches as a whole (Rust's syntax, without look-around)."""
    regex = regex.removeprefix("^")
    n_backslashes = len(regex[:-1]) - len(regex[:-1].rstrip("\\"))
    if regex.endswith("$") and n_backslashes % 2 == 0:
        regex = regex[:-1]
    return LLMatcher.grammar_from_regex(regex)


def from_lark(text: str) -> str:
    """Return the grammar of a Lark text, or of llama.cpp's notation (GBNF). Raises ValueError for wrong GBNF."""
    try:
        return LLMatcher.grammar_from_lark(any_to_lark(text))
    except GbnfToLarkError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
