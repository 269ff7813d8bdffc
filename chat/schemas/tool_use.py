"""Checks of the tools of a request, whatever its wire format: names, sizes, schemas, and the choice among them."""

import json
import re
import time
from collections.abc import Callable, Sequence

from chat.errors import InvalidRequest, quoted
from chat.schemas.decoding import invalid_field
from chat.schemas.metadata import UNSTORABLE, is_storable
from chat.schemas.output_format import check_schema
from chat.tool_calling.call_grammar import calls_grammar
from chat.tool_calling.tools import Tool, ToolUse
from inference.engine.grammar import sources
from inference.engine.grammar.limits import MAX_DEPTH, MAX_SOURCE_BYTES
from inference.engine.grammar.schema_parts import JsonSchema
from inference.runtime.grammar_check import grammar_problem

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 2 * MAX_SOURCE_BYTES
LOCATING_SECS = 3.0  # to find the tools that are not compiled as they are

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def check_tools(tools: Sequence[Tool], *, path_of: Callable[[int], str]) -> None:
    """Raise InvalidRequest for a name that is none or occurs twice, and for too much text.

    ``path_of`` returns the path of the tool with that index, where its ``name`` stands.
    """
    first: dict[str, int] = {}
    for index, tool in enumerate(tools):
        field = f"{path_of(index)}.name"
        if not _NAME.fullmatch(tool.name):
            raise invalid_field(field, "must have 1 to 64 letters, digits, or any of _ - .")
        if tool.name in first:
            raise invalid_field(field, f"is the name of {path_of(first[tool.name])}, too")
        first[tool.name] = index
    if len(json.dumps([tool.declaration for tool in tools])) > MAX_TOOLS_BYTES:
        raise invalid_field("tools", f"must have at most {MAX_TOOLS_BYTES} bytes")


def check_chosen(name: str, tools: Sequence[Tool], *, field: str) -> None:
    """Raise InvalidRequest if ``name`` is not the name of a tool."""
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"{field} names no tool of this request: {quoted(name)}", field=field)


def tools_grammar(use: ToolUse, *, schema_path_of: Callable[[int], str], text_schema: JsonSchema | None = None) -> str:
    """Return the grammar of the answers that ``use`` allows; empty if that is plain text.

    Raises InvalidRequest with the path of the part of a schema that cannot be compiled; ``schema_path_of`` returns the
    path of the schema of the tool with that index.
    """
    if not use.offered:
        return ""
    for index, tool in enumerate(use.tools):
        if not is_storable(tool.parameters, MAX_DEPTH):
            raise invalid_field(schema_path_of(index), UNSTORABLE)
    grammar = calls_grammar(use, text_schema=text_schema)
    if not (problem := grammar_problem(grammar)):
        return grammar
    lenient = []
    ends_at = time.monotonic() + LOCATING_SECS
    for index, tool in enumerate(use.tools):
        if time.monotonic() > ends_at:
            raise _not_compiled(problem)
        if not grammar_problem(sources.from_json_schema(tool.schema)):
            continue
        if tool.strict or grammar_problem(sources.from_json_schema(tool.schema, lenient=True)):
            check_schema(tool.schema, field=schema_path_of(index))
        lenient.append(tool)
    grammar = calls_grammar(use, lenient=lenient, text_schema=text_schema)
    if problem := grammar_problem(grammar):
        raise _not_compiled(problem)
    return grammar


def _not_compiled(problem: str) -> InvalidRequest:
    return InvalidRequest(f"tools cannot be compiled: {problem}", code="invalid_schema", field="tools")
