"""The text form of calls and their results, in prompts and in generated answers: that of Hermes and Qwen.

    <tool_call>
    {"name": "weather", "arguments": {"city": "Rome"}}
    </tool_call>

Everything but the arguments is fixed to the letter, so that a call in a history has the text that was generated.
"""

import json
from collections.abc import Iterable, Sequence

from chat.tool_calling.tools import Tool

CALL_START, CALL_END = "<tool_call>", "</tool_call>"
RESULT_START, RESULT_END = "<tool_response>", "</tool_response>"
BEFORE_NAME, AFTER_NAME, AFTER_ARGUMENTS = '\n{"name": "', '", "arguments": ', "}\n"

_INSTRUCTIONS = """# Tools

You can call these functions:
<tools>
{declarations}
</tools>

To call a function, write its name and its arguments as JSON in this form, one block for each call:
<tool_call>
{{"name": "function name", "arguments": {{"argument name": "value"}}}}
</tool_call>
Results come back in <tool_response> blocks. Answer in plain words when no function is needed."""


def call_text(name: str, arguments: str) -> str:
    """Return the text of a call; ``arguments`` is JSON and is not changed."""
    return f"{CALL_START}{BEFORE_NAME}{name}{AFTER_NAME}{arguments or '{}'}{AFTER_ARGUMENTS}{CALL_END}"


def answer_text(content: str, calls: Iterable[tuple[str, str]]) -> str:
    """Return an answer of text and calls, each a name and its arguments."""
    return "\n".join(filter(None, [content, *(call_text(name, arguments) for name, arguments in calls)]))


def results_text(results: Iterable[str]) -> str:
    """Return the results of calls that were made together."""
    return "\n".join(f"{RESULT_START}\n{result}\n{RESULT_END}" for result in results)


def is_results(text: str) -> bool:
    """Return whether a user turn is the results of calls."""
    return text.startswith(f"{RESULT_START}\n") and text.endswith(f"\n{RESULT_END}")


def instructions(tools: Sequence[Tool]) -> str:
    """Return the part of a system prompt for models whose chat template knows no tools."""
    declarations = "\n".join(json.dumps(tool.declaration, ensure_ascii=False) for tool in tools)
    return _INSTRUCTIONS.format(declarations=declarations)
