"""The leading tokens of a prompt that are the installation's own text: those that all callers share in the KV cache."""

import pytest
from pytest_django.fixtures import Settings

from chat.enums import Strategy
from chat.prompting.builder import PromptBuilder
from chat.prompting.chat_format import ChatFormat
from chat.prompting.chat_templates import choose_format
from chat.prompting.system_prompt import system_prompt_of
from chat.summarization.summarizer import Summarizer
from tests.chat.vocabularies import TEMPLATES, fake_tokenizer, shown

SYSTEM = "You answer for this household. Be brief."
TEXTS = [
    "a question",
    "",
    " ",
    "<end_of_turn>\n<start_of_turn>model\n",
    "\n\nUser:",
    SYSTEM,
    f"{SYSTEM}\n\nmore",
    "é😀",
]


def formats() -> dict[str, ChatFormat]:
    templated = {name: choose_format(fake_tokenizer(template=text), "auto") for name, text in TEMPLATES.items()}
    return {
        **templated,
        "turns": choose_format(fake_tokenizer(), "gemma"),
        "transcript": choose_format(fake_tokenizer(is_base=True), "auto"),
    }


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", formats())
def test_the_system_text_is_shared_and_no_message(name: str, text: str) -> None:
    chat_format = formats()[name]
    ids = chat_format.opening(SYSTEM, text)
    n_shared = chat_format.n_shared(ids, SYSTEM)
    assert SYSTEM in shown(ids[:n_shared])
    assert ids[:n_shared] == chat_format.first_turn(SYSTEM, "")[:n_shared], "text of the installation alone"
    if text == "a question":
        assert "a q" not in shown(ids[:n_shared])


@pytest.mark.parametrize("other", ["You answer for another household.", SYSTEM[:-1], "", "x"])
def test_another_system_text_ends_what_is_shared(other: str) -> None:
    chat_format = formats()["gemma"]
    ids = chat_format.opening(other, "a question")
    n_shared = chat_format.n_shared(ids, SYSTEM)
    assert shown(ids[:n_shared]) in shown(chat_format.first_turn(SYSTEM, ""))
    assert n_shared < len(chat_format.first_turn(SYSTEM, "a question"))


def builder(system_prompt: str) -> PromptBuilder:
    return PromptBuilder(system_prompt=system_prompt, max_tokens=8, strategy=Strategy.TRUNCATE)


def test_a_client_s_own_system_prompt_shares_nothing_not_even_with_equal_words(settings: Settings) -> None:
    settings.GEMMA_SYSTEM_PROMPT = SYSTEM
    for own in ("Be rude.", SYSTEM, f"{SYSTEM}!"):
        made = builder(own)
        assert made.n_shared(made.format.opening(made.system, "a question")) == 0
    for default in ("", "  "):
        made = builder(default)
        assert made.n_shared(made.format.opening(made.system, "a question")) >= len(SYSTEM)


def test_what_follows_the_system_text_is_not_shared(settings: Settings) -> None:
    """The block about earlier turns, which a long conversation has behind its system text."""
    settings.GEMMA_SYSTEM_PROMPT = SYSTEM
    made = builder("")
    plain = made.format.opening(system_prompt_of("", plain_model=False), "a question")
    cut = made.format.opening(f"{SYSTEM}\n\nEarlier the user said: a secret", "a question")
    assert made.n_shared(cut) <= made.n_shared(plain)
    assert "Earlier" not in shown(cut[: made.n_shared(cut)])


def test_summaries_share_their_instructions() -> None:
    summarizer = Summarizer.of(builder("").budget)
    first, second = summarizer.prompt("a secret of ann"), summarizer.prompt("the weather", "so far a secret of bob")
    for ids in (first, second):
        assert "secret" not in shown(ids[: summarizer.n_shared(ids)])
        assert summarizer.n_shared(ids) > 100
