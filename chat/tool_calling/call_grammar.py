"""The grammar of an answer that may call tools. Compiles nothing."""

import json
from collections.abc import Sequence
from typing import Any

from chat.tool_calling.call_text import AFTER_ARGUMENTS, AFTER_NAME, BEFORE_NAME, CALL_END, CALL_START
from chat.tool_calling.tools import Tool, ToolMode, ToolUse
from inference.engine.grammar import sources
from inference.engine.grammar.schema_parts import JsonSchema

MAX_CALLS = 32  # in one answer

# The text ends where the first call starts: a lazy lexeme matches as early as it can.
_AUTO = """start: text | lead rest more
lead[lazy]: /(.|\\n)*{start}/
text: /(.|\\n)*/
"""
_AUTO_JSON = """start: json | {start} rest more
json: %json {schema}
"""
_REQUIRED = """start: {start} rest more
"""


def calls_grammar(use: ToolUse, *, lenient: Sequence[Tool] = (), text_schema: JsonSchema | None = None) -> str:
    """Return the grammar of the answers that ``use`` allows.

    Keywords that the compiler does not know are ignored for the tools ``lenient``. With ``text_schema`` an answer
    without calls is JSON of that schema.
    """
    if use.mode is not ToolMode.AUTO or use.name:
        lark = _REQUIRED.format(start=_quoted(CALL_START))
    elif text_schema is None:
        lark = _AUTO.format(start=CALL_START)
    else:
        lark = _AUTO_JSON.format(start=_quoted(CALL_START), schema=_json(sources.with_options(text_schema)))
    may_repeat = use.parallel and not use.name
    tools = use.callable_tools
    further = f"({_quoted(chr(10) + CALL_START)} rest){{0,{MAX_CALLS - 1}}}" if may_repeat else ""
    lark += f"more: {further}\n"
    lark += f"rest: {' | '.join(f'call_{number}' for number in range(len(tools)))}\n"
    for number, tool in enumerate(tools):
        schema = sources.with_options(tool.arguments_schema, lenient=tool in lenient)
        head, tail = _quoted(f"{BEFORE_NAME}{tool.name}{AFTER_NAME}"), _quoted(AFTER_ARGUMENTS + CALL_END)
        lark += f"call_{number}: {head} arguments_{number} {tail}\narguments_{number}: %json {_json(schema)}\n"
    return sources.from_lark(lark)


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema)


def _quoted(text: str) -> str:
    return json.dumps(text)
