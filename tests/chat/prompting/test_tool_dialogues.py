"""Calls and results of tools in a dialogue equal the template's own rendering, with the thoughts that it shows."""

import pytest

from chat.prompting.context_window import Exchange
from chat.prompting.template_format import TemplateFormat
from chat.prompting.tool_instructions import tool_instructions
from chat.tool_calling.call_text import instructions
from tests.chat.prompting.dialogues import TOOLS, compared, compared_calls, spelled, window
from tests.chat.vocabularies import fake_tokenizer

DECLARED = "{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}"
TOOLS_BLOCK = "{% if tools %}{{ '\n\n' }}# Tools\n<tools>" + DECLARED + "\n</tools>{% endif %}<end>"
CALLS = (
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
)
RESULTS = (
    "{% elif m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<user>{% else %}{{ '\n' }}{% endif %}"
    "<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<end>{% endif %}{% endif %}"
)
START = "{% for m in messages %}{% if m.role == 'system' %}<system>{{ m.content }}" + TOOLS_BLOCK
HERMES = (
    START + "{% elif m.role == 'user' %}<user>{{ m.content }}<end>{% elif m.role == 'assistant' %}<assistant>"
    "{{ m.content }}" + CALLS + "<end>" + RESULTS + "{% endfor %}<assistant>"
)
# As Qwen 3 has it: thoughts are shown behind the last question, of which results are none.
BETWEEN_CALLS = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' and not "
    "(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    + START
    + "{% elif m.role == 'user' %}<user>{{ m.content }}<end>{% elif m.role == 'assistant' %}<assistant>"
    "{% if m.reasoning_content and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}" + CALLS + "<end>" + RESULTS + "{% endfor %}<assistant>"
)
# The marks of a call around another notation.
OTHER_NOTATION = HERMES.replace('{"name": "{{ c.function.name }}", "arguments": ', "<function={{ c.function.name }}>")


@pytest.mark.parametrize("template", [HERMES, BETWEEN_CALLS])
def test_each_step_equals_the_templates_own_rendering(template: str) -> None:
    differing = [(c.n_turns, c.prompt, c.expected) for c in compared_calls(template) if not c.is_equal]
    assert not differing
    assert all(case.is_equal for case in compared(template))


def test_thoughts_between_calls_are_read_and_those_of_earlier_turns_are_not() -> None:
    before, after = (
        next(case.prompt for case in compared_calls(BETWEEN_CALLS) if case.n_turns == n_turns and case.has_thoughts)
        for n_turns in (2, 3)
    )
    assert "<think>\nthought 1\n</think>" in before
    assert "thought" not in after


def test_a_template_of_another_notation_gives_way() -> None:
    assert "<tool_call>" in OTHER_NOTATION
    assert tool_instructions(TOOLS, fake_tokenizer(template=OTHER_NOTATION)) == instructions(TOOLS)
    assert tool_instructions(TOOLS, fake_tokenizer(template=HERMES)) != instructions(TOOLS)


def test_a_template_that_refuses_results_in_a_user_turn_still_shows_them() -> None:
    refusing = HERMES.replace(
        "<user>{{ m.content }}<end>",
        "{% if '<tool_response>' in m.content %}{{ raise_exception('no') }}{% endif %}<user>{{ m.content }}<end>",
    )
    chat_format = TemplateFormat(fake_tokenizer(), refusing)
    result = "<tool_response>\nrain\n</tool_response>"
    prompt = window(chat_format, "").render([Exchange(user="one", answer="call"), Exchange(user=result)])
    assert spelled(prompt.ids).endswith(f"<user>{result}<end><assistant>")
