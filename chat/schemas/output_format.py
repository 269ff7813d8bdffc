"""The form that an answer must have: fields of requests, and the grammar that they become.

A schema or grammar that cannot be compiled is refused here, before anything is stored, with the path of the wrong part.
"""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.errors import InvalidRequest
from chat.schemas.decoding import FieldError, invalid_field
from chat.schemas.metadata import UNSTORABLE, is_storable
from chat.schemas.scalars import NonEmptyText, Text
from inference.engine.grammar import sources
from inference.engine.grammar.limits import MAX_DEPTH, MAX_SOURCE_BYTES
from inference.engine.grammar.schema_parts import JsonSchema, Path
from inference.runtime.grammar_check import grammar_problem, schema_problem

Schema = Annotated[dict[str, Any] | bool, Meta(description="A JSON Schema (draft 2020-12).")]


class JsonSchemaFormat(msgspec.Struct, frozen=True, kw_only=True):
    """A named schema. It is always obeyed; ``strict`` and ``description`` are accepted and change nothing."""

    schema: Schema
    name: Annotated[Text, Meta(max_length=256)] | None = None
    description: Text | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's ``text``, ``json_object`` and ``json_schema``; beside them ``regex`` (the whole answer matches it) and
    ``lark`` (a grammar of llguidance, or llama.cpp's notation). ``schema`` is llama-server's place for a schema."""

    type: Literal["text", "json_object", "json_schema", "regex", "lark"]
    json_schema: JsonSchemaFormat | None = None
    schema: Schema | None = None
    regex: NonEmptyText | None = None
    grammar: NonEmptyText | None = None

    def __post_init__(self) -> None:
        if self.type == "json_schema" and self.json_schema is None and self.schema is None:
            raise FieldError("json_schema", "is required")
        if self.type == "regex" and self.regex is None:
            raise FieldError("regex", "is required")
        if self.type == "lark" and self.grammar is None:
            raise FieldError("grammar", "is required")


def format_grammar(response_format: ResponseFormat, *, field: str = "response_format") -> str:
    """Return the grammar of a format, empty for ``text``. Raises InvalidRequest with the path of the wrong part."""
    match response_format:
        case ResponseFormat(type="regex", regex=str(regex)):
            return text_grammar(regex, field=f"{field}.regex", is_regex=True)
        case ResponseFormat(type="lark", grammar=str(grammar)):
            return text_grammar(grammar, field=f"{field}.grammar")
        case ResponseFormat(type="json_object" | "json_schema"):
            schema, path = format_schema(response_format, field=field)
            return schema_grammar(schema, field=path)
    return ""


def format_schema(response_format: ResponseFormat, *, field: str) -> tuple[JsonSchema, str]:
    """Return the schema of a JSON format and its path."""
    if response_format.type == "json_schema" and response_format.json_schema is not None:
        return response_format.json_schema.schema, f"{field}.json_schema.schema"
    if response_format.schema is not None:
        return response_format.schema, f"{field}.schema"
    return sources.ANY_OBJECT, field


def schema_grammar(schema: JsonSchema, *, field: str) -> str:
    """Return the grammar of a JSON Schema. Raises InvalidRequest with the path of the part that cannot be compiled."""
    check_schema(schema, field=field)
    return sources.from_json_schema(schema)


def check_schema(schema: JsonSchema, *, field: str) -> None:
    """Raise InvalidRequest for a schema that is too large or too deep, or cannot be compiled."""
    if _depth(schema) > MAX_DEPTH:
        raise invalid_field(field, f"must not be nested deeper than {MAX_DEPTH} levels")
    if len(json.dumps(schema)) > MAX_SOURCE_BYTES:
        raise _too_long(field)
    if not is_storable(schema, MAX_DEPTH):
        raise invalid_field(field, UNSTORABLE)
    if problem := schema_problem(schema):
        path, message = problem
        raise _not_compiled(field + _joined(path), message)


def text_grammar(text: str, *, field: str, is_regex: bool = False) -> str:
    """Return the grammar of a regular expression or a Lark text. Raises InvalidRequest."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
        raise _too_long(field)
    try:
        grammar = sources.from_regex(text) if is_regex else sources.from_lark(text)
    except ValueError as error:
        raise _not_compiled(field, str(error)) from error
    if problem := grammar_problem(grammar):
        raise _not_compiled(field, problem)
    return grammar


def _too_long(field: str) -> InvalidRequest:
    return invalid_field(field, f"must have at most {MAX_SOURCE_BYTES} bytes")


def _not_compiled(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field} cannot be compiled: {message}", code="invalid_schema", field=field)


def _joined(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _depth(value: Any) -> int:  # noqa: ANN401  a JSON value
    """Return the levels of lists and objects in each other, without recursion."""
    depth, level = 0, [value]
    while level := [member for item in level for member in _members(item)]:
        depth += 1
    return depth


def _members(value: Any) -> list[Any]:  # noqa: ANN401
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
