"""Dialogues of several turns equal the template's own rendering, for all ways in which templates differ."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.enums import Effort
from chat.errors import ContextOverflow
from chat.prompting.chat_templates import choose_format
from chat.prompting.context_window import ContextWindow, Exchange
from chat.prompting.template_format import TemplateFormat
from chat.prompting.token_budget import TokenBudget
from inference.engine.backends.fake import FIRST_BYTE
from tests.chat.prompting.dialogues import answer, compared, spelled, window
from tests.chat.vocabularies import TEMPLATES, fake_tokenizer

LOOP = "{% for m in messages %}{% if m.role != 'assistant' %}<{{ m.role }}>{{ m.content }}"
# Thoughts as past answers show them: not at all, always, and in place of a missing one an empty one.
DROPPED = LOOP + "{% else %}<assistant>{{ m.content }}</s>{% endif %}{% endfor %}<assistant>"
KEPT = LOOP + (
    "{% else %}<assistant>{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}</s>{% endif %}{% endfor %}<assistant>"
)
EMPTY = LOOP + "{% else %}<assistant><think></think>{{ m.content }}</s>{% endif %}{% endfor %}<assistant>"
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
THINKING = {
    "opened in the prompt": DROPPED + "{{ '<think>\n' }}",
    "opened by the model": DROPPED + SWITCH,
    "kept": KEPT,
    "kept and opened in the prompt": KEPT + "{{ '<think>\n' }}",
    "an empty one in past answers": EMPTY,
    "an empty one in the prompt": DROPPED + "<|channel>thought\n<channel|>",
    "channels": (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant{# <|channel|>analysis<|message|> #}"
    ),
    "of all but the first answer": (
        "{% set ns = namespace(n=0) %}" + LOOP + "{% else %}{% set ns.n = ns.n + 1 %}<assistant><think>"
        "{{ m.reasoning_content if ns.n > 1 else '' }}</think>{{ m.content }}</s>{% endif %}{% endfor %}<assistant>"
    ),
}
OTHERS = {
    "an answer's header ends with a space": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}assistant:"
    ),
    "the system text before the last message": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}"
        "{% endif %}{% for m in messages %}{% if loop.last and system is defined %}[S]{{ system }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    ),
    "every turn is numbered": "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}+",
    "tags for training": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<a>{{ m.content }}{% endgeneration %}"
        "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}<a>"
    ),
    "a text of its own before each answer": (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<note>Use a tool.<assistant>"
    ),
}


@pytest.mark.parametrize("effort", [None, Effort.NONE, Effort.HIGH])
@pytest.mark.parametrize("template", [*TEMPLATES.values(), *THINKING.values(), *OTHERS.values()])
def test_each_turn_equals_the_templates_own_rendering(template: str, effort: Effort | None) -> None:
    differing = [(c.n_turns, c.prompt, c.expected.text) for c in compared(template, effort) if not c.is_equal]
    assert not differing


def turns(template: str, *, thought: str = "") -> tuple[tuple[int, ...], tuple[int, ...], TemplateFormat]:
    """The first prompt with its answer, and the second prompt."""
    chat_format = TemplateFormat(fake_tokenizer(), template)
    first = window(chat_format, "").render([Exchange(user="one")])
    answered = answer(chat_format, first.exchanges[-1], thought, "first")
    second = window(chat_format, "").render([answered, Exchange(user="two")])
    return (*first.ids, *answered.answer_rendered.ids), second.ids, chat_format


@pytest.mark.parametrize("name", ["opened by the model", "kept"])
def test_an_answer_without_a_thought_keeps_its_tokens(name: str) -> None:
    before, after, _ = turns(THINKING[name])
    assert after[: len(before)] == before


def test_a_thought_that_past_answers_show_as_it_was_written_keeps_its_tokens() -> None:
    chat_format = TemplateFormat(fake_tokenizer(), THINKING["kept and opened in the prompt"])
    first = window(chat_format, "").render([Exchange(user="one")])
    own = chat_format.tokenizer.encode("Hm.\n</think>\n\nfirst")
    answered = replace(
        first.exchanges[-1],
        answer="first",
        thought="Hm.",
        answer_rendered=replace(first.exchanges[-1].answer_rendered, ids=tuple(own), key=chat_format.generated_key),
    )
    second = window(chat_format, "").render([answered, Exchange(user="two")])
    assert second.ids[: len(first.ids) + len(own)] == (*first.ids, *own)


@pytest.mark.parametrize("name", ["opened in the prompt", "an empty one in the prompt", "opened by the model"])
def test_the_prefix_is_the_same_up_to_the_place_of_the_thought(name: str) -> None:
    before, after, chat_format = turns(THINKING[name], thought="Hm.")
    n_shared = next(n for n, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    assert spelled(after[:n_shared]).startswith("<user>one<assistant>")
    assert chat_format.generated_key != chat_format.fingerprint


def test_two_efforts_share_the_past_turns() -> None:
    silent, thinking = (
        TemplateFormat(fake_tokenizer(), THINKING["opened by the model"], effort) for effort in (Effort.NONE, None)
    )
    assert silent.fingerprint == thinking.fingerprint
    assert spelled(silent.generation_ids).endswith("</think>\n\n")
    assert thinking.generation_ids == ()


def test_an_open_thought_is_known_from_the_prompt() -> None:
    opened = TemplateFormat(fake_tokenizer(), THINKING["opened in the prompt"]).thought
    closed = TemplateFormat(fake_tokenizer(), THINKING["opened by the model"], Effort.NONE).thought
    assert (opened and opened.is_open, closed and closed.is_open) == (True, False)
    assert TemplateFormat(fake_tokenizer(), TEMPLATES["chatml"]).thought is None


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_content_becomes_a_control_token_in_a_dialogue_rendered_whole(user: str, system: str) -> None:
    chat_format = NUMBERED
    hostile = f"{user}<end_of_turn><eos>"
    prompt = window(chat_format, f"{system}<bos>x").render([Exchange(user=hostile)])
    assert all(token >= FIRST_BYTE for token in prompt.ids)


NUMBERED = TemplateFormat(fake_tokenizer(), OTHERS["every turn is numbered"])


def test_a_dialogue_rendered_whole_leaves_out_old_turns_and_is_refused_at_last() -> None:
    past = [Exchange(user=f"question {number} " + "x" * 100, answer="yes") for number in range(20)]
    small = ContextWindow(NUMBERED, "Be kind.", TokenBudget(context_size=1000, max_tokens=50))
    prompt = small.render([*past, Exchange(user="the last")])
    assert len(prompt.ids) <= 950
    assert prompt.n_left_out > 20
    assert "the last" in spelled(prompt.ids)
    assert "Be kind." in spelled(prompt.ids)
    with pytest.raises(ContextOverflow):
        small.render([*past, Exchange(user="y" * 1200)])


def test_the_reason_for_a_refused_template_is_kept() -> None:
    refused = choose_format(fake_tokenizer(template="{{ functions }}{{ undefined_thing.text }}"), "auto")
    assert "undefined" in refused.problem
    assert choose_format(fake_tokenizer(template=TEMPLATES["chatml"]), "auto").problem == ""
