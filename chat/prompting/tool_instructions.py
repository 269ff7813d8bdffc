"""The part of a system prompt that shows a model its tools: in the words of its chat template, else in our own.

A template is used if it writes calls in the form of ``chat.tool_calling.call_text``, as those of Hermes and Qwen do.
"""

import json
import logging
from collections.abc import Sequence
from functools import lru_cache

from chat.prompting.jinja_sandbox import Conversation, TemplateUnusable, render
from chat.tool_calling.call_text import CALL_START, answer_text, instructions, results_text
from chat.tool_calling.tools import Tool
from inference.config.tokenizer import Tokenizer

log = logging.getLogger(__name__)

REMEMBERED = 64  # lists of tools; rendering one takes a child process
SYSTEM, USER = "\ue000", "\ue001"
_CONVERSATION: Conversation = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]
_NAMES, _ARGUMENTS, _RESULTS = ("first", "second"), {"a": [1, "b"]}, ("\ue002", "\ue003")
_IDS = ("call00000", "call00001")
_FUNCTIONS = [{"name": name, "arguments": _ARGUMENTS} for name in _NAMES]
# Two calls: some templates write what is between them in another way.
_CALLS: Conversation = [
    *_CONVERSATION,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": call_id, "type": "function", "function": function}
            for call_id, function in zip(_IDS, _FUNCTIONS, strict=True)
        ],
    },
    *(
        {"role": "tool", "tool_call_id": call_id, "name": name, "content": result}
        for call_id, name, result in zip(_IDS, _NAMES, _RESULTS, strict=True)
    ),
]


def tool_instructions(tools: Sequence[Tool], tokenizer: Tokenizer) -> str:
    """Return the text that follows the system prompt; empty without tools."""
    if not tools:
        return ""
    template = tokenizer.chat_template or ""
    if "tools" in template and _writes_calls(template, tokenizer.bos_text, tokenizer.eos_text):
        literal = _jinja_literal([tool.declaration for tool in tools])
        if text := _template_text(template, tokenizer.bos_text, tokenizer.eos_text, literal):
            return text
    return instructions(tools)


@lru_cache(maxsize=8)
def _writes_calls(template: str, bos: str, eos: str) -> bool:
    """Return whether a template writes calls and results as they are generated and read here. Others have the same
    marks around another notation, which no answer could follow."""
    if CALL_START not in template:
        return False
    try:
        [rendering] = render(template, bos=bos, eos=eos, conversations=[_CALLS])
    except TemplateUnusable as error:
        log.warning("calls not rendered by the chat template error=%s", error)
        return False
    calls = answer_text("", [(name, json.dumps(_ARGUMENTS)) for name in _NAMES])
    texts = (calls, results_text(_RESULTS))
    return all(text in rendering.text for text in texts)


@lru_cache(maxsize=REMEMBERED)
def _template_text(template: str, bos: str, eos: str, tools: str) -> str:
    """Return the text between the system prompt and the end of its message that is there with tools alone."""
    try:
        [plain] = render(template, bos=bos, eos=eos, conversations=[_CONVERSATION])
        [with_tools] = render(f"{{% set tools = {tools} %}}{template}", bos=bos, eos=eos, conversations=[_CONVERSATION])
    except TemplateUnusable as error:
        log.warning("tools not rendered by the chat template error=%s", error)
        return ""
    start, _, rest = plain.text.partition(SYSTEM)
    shown_start, mark, shown_rest = with_tools.text.partition(SYSTEM)
    if not mark or shown_start != start or not shown_rest.endswith(rest):
        return ""
    return shown_rest[: len(shown_rest) - len(rest)].strip()


def _jinja_literal(value: object) -> str:
    """Return a JSON value as Jinja writes it."""
    if isinstance(value, dict):
        members = (f"{_jinja_literal(name)}: {_jinja_literal(member)}" for name, member in value.items())
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_jinja_literal, value))}]"
    if value is None:
        return "none"
    return json.dumps(value, ensure_ascii=False)
