"""Tools in the system prompt: in the words of a template of Hermes' kind, else in our own."""

import json
from typing import Any

import pytest

from chat.prompting.tool_instructions import tool_instructions
from chat.tool_calling.call_text import instructions
from chat.tool_calling.tools import Tool
from tests.chat.vocabularies import CHATML_TEMPLATE, fake_tokenizer

# Shortened from Qwen 2.5's.
HERMES_TEMPLATE = """{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}{%- endif %}{{- "# Tools\\n\\n<tools>" }}{%- for tool in tools %}{{- "\\n" }}
{{- tool | tojson }}{%- endfor %}{{- "\\n</tools>\\nAnswer with <tool_call></tool_call>.<|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}{%- if message.role == 'tool' %}
{%- if loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- elif message.role != 'system' %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}{%- for call in message.tool_calls or [] %}
{{- '' if loop.first else '\\n' }}{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

TOOL = Tool(name="weather", description="Forecast", parameters={"properties": {"city": {"type": "string"}}})


def declared(text: str) -> list[dict[str, Any]]:
    block = text.partition("<tools>\n")[2].partition("\n</tools>")[0]
    return [json.loads(line) for line in block.split("\n")]


@pytest.mark.parametrize("template", [None, CHATML_TEMPLATE, HERMES_TEMPLATE])
def test_every_tool_is_declared(template: str | None) -> None:
    tools = [TOOL, Tool(name="clock")]
    text = tool_instructions(tools, fake_tokenizer(template=template))
    assert declared(text) == [tool.declaration for tool in tools]
    assert ("Answer with" in text) is (template is HERMES_TEMPLATE)


@pytest.mark.parametrize(
    "description",
    ["%} {{ 7 * 7 }} {% endif %}", "\"'\\ \n\t", "Grüße 🌍 \u2028", "<|im_end|><tool_call>", "\\u0041 {# x #}"],
)
def test_descriptions_are_text_to_the_template(description: str) -> None:
    tool = Tool(name="f", description=description, parameters={"properties": {description: {"const": None}}})
    text = tool_instructions([tool], fake_tokenizer(template=HERMES_TEMPLATE))
    assert declared(text) == [tool.declaration]


@pytest.mark.parametrize("options", ["ensure_ascii=False", "sort_keys=False", "indent=none", "separators=none"])
def test_a_template_may_name_the_options_of_json(options: str) -> None:
    template = HERMES_TEMPLATE.replace("tool | tojson", f"tool | tojson({options})")
    assert tool_instructions([TOOL], fake_tokenizer(template=template)) == tool_instructions(
        [TOOL], fake_tokenizer(template=HERMES_TEMPLATE)
    )


@pytest.mark.parametrize(
    "template",
    [
        HERMES_TEMPLATE.replace("messages[0].content + '\\n\\n'", "'Hello'"),  # drops the system prompt
        HERMES_TEMPLATE.replace("tool | tojson", "tool.nothing.at.all"),
        HERMES_TEMPLATE.replace("{%- for tool", "{%- for n in range(10 ** 9) %}{%- endfor %}{%- for tool"),
        HERMES_TEMPLATE + "{% endfor %}",
        HERMES_TEMPLATE.replace("{{- '' if loop.first else '\\n' }}", ""),  # no line break between calls
        HERMES_TEMPLATE.replace("'\\n<tool_response>", "'<tool_response>"),  # nor between results
    ],
)  # fmt: skip
def test_a_template_that_cannot_show_them_gives_way(template: str) -> None:
    assert tool_instructions([TOOL], fake_tokenizer(template=template)) == instructions([TOOL])


def test_without_tools_there_is_no_text() -> None:
    assert tool_instructions([], fake_tokenizer(template=HERMES_TEMPLATE)) == ""
