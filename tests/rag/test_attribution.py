"""Sentences of answers are attributed to the sources that support them, and to no others."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rag.search.attribution import attributions

SOURCES = [
    {
        "label": "1",
        "text": "The demo for the Zephyr board has to be finished by Friday the 14th.",
        "speaker": "Sarah",
        "time": "2026-11-03T10:00:00+00:00",
    },
    {"label": "2", "text": "The budget is 4,200 euros and was approved.", "speaker": "Maria", "title": "Kickoff"},
    {"label": "3", "text": "Das Lager in Gent zieht erst im Frühjahr um.", "speaker": "Jonas"},
    {"label": "4", "text": "服务器迁移推迟到六月，由李娜负责。", "speaker": "王伟"},
    {"label": "5", "text": "We did not sign the contract with Globex.", "speaker": "Bob"},
]


def attributed(answer: str, question: str = "") -> list[tuple[str, str]]:
    return [(part.label, answer[part.start : part.end]) for part in attributions(answer, SOURCES, question)]


@pytest.mark.parametrize(
    ("answer", "question", "label"),
    [
        ("Sarah said the demo for the Zephyr board must be finished by Friday the 14th.", "What is the deadline?", "1"),
        ("The Zephyr demo was due on the 14th; Sarah said so on 3 November 2026.", "", "1"),
        ("The budget is 4200 euros.", "How large is the budget?", "2"),
        ("It was approved at 4.200 euros.", "What about the budget?", "2"),
        ("Das Lager in Gent zieht im Frühjahr um.", "Wann zieht das Lager um?", "3"),
        ("服务器迁移推迟到六月。", "服务器什么时候迁移？", "4"),
        ("You did not sign the contract with Globex.", "Which contract did we not sign?", "5"),
    ],
)
def test_supported(answer: str, question: str, label: str) -> None:
    assert attributed(answer, question) == [(label, answer)]


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("The demo for the Zephyr board has to be finished by Friday the 15th.", ""),
        ("The budget is 4,300 euros.", ""),
        ("Bob said that the budget was approved.", ""),
        ("The budget was approved by Peter.", ""),
        ("The budget was not approved.", ""),
        ("The deadline of the demo for the Zephyr board is not mentioned.", "What is the deadline of the Zephyr demo?"),
        ("Das wird nicht erwähnt.", ""),
        ("未提及服务器迁移。", ""),
        ("Hello! How can I help you today?", ""),
        ("The demo board.", "What about the demo board?"),
        ("", ""),
        ("```\nThe budget is 4,200 euros and was approved.\n```", ""),
    ],
)
def test_unsupported(answer: str, question: str) -> None:
    assert attributed(answer, question) == []


def test_each_sentence_for_itself() -> None:
    answer = (
        "Two things:\n\n1. The budget is 4,200 euros [2].\n2. The demo for Zephyr is due by Friday the 14th. Great!\n"
    )
    assert attributed(answer) == [("1", "The demo for Zephyr is due by Friday the 14th.")]
    wrong = "The budget is 4,200 euros and approved [1]."
    assert attributed(wrong) == [("2", wrong)]


def test_without_sources() -> None:
    assert attributions("The budget is 4,200 euros.", []) == []
    assert attributions("The budget is 4,200 euros.", [{"text": "The budget is 4,200 euros."}]) == []


@pytest.mark.parametrize("text", ["", "!!!", "\u2026 \u2014 ?", "\U0001f600", "the of and"])
def test_sources_without_words_support_nothing(text: str) -> None:
    source = {"label": "1", "text": text}
    assert attributions("Paula has a red boat in Oslo.", [source]) == []
    budget = "The budget is 4,200 euros."
    found = attributions(budget, [source, {"label": "2", "text": budget}])
    assert [part.label for part in found] == ["2"]


@pytest.mark.parametrize("end", [".", "?!", "...", "!", "?", ".)", '."', "\u061f"])
def test_ends_of_sentences(end: str) -> None:
    answer = f"Well{end} The budget is 4,200 euros and rose 3.5 percent, it was approved{end} Good{end}"
    sources = [{"label": "2", "text": "The budget is 4,200 euros, rose 3.5 percent and was approved."}]
    [part] = attributions(answer, sources)
    assert answer[part.start : part.end] == f"The budget is 4,200 euros and rose 3.5 percent, it was approved{end}"


@given(st.text(st.sampled_from("aB 14.,!?\n`[]()-*#\u4e00\u3002"), max_size=200))
def test_places_are_in_order_and_in_the_text(answer: str) -> None:
    end = 0
    for part in attributions(answer, [*SOURCES, {"label": "9", "text": answer}]):
        assert end <= part.start < part.end <= len(answer)
        assert answer[part.start : part.end] == answer[part.start : part.end].strip()
        end = part.end


@pytest.mark.parametrize(
    "answer",
    [
        *("word " * 20_000, "[1] " * 5_000 + "a. " * 5_000, "." * 30_000 + "\n" * 3_000, "`" * 60_000),
        *("?!" * 30_000, ".)" * 30_000 + "x", f"a.{')' * 60_000}x", f"{' ' * 60_000}x", "3.5" * 20_000),
    ],
)
def test_long_answers_take_linear_time(answer: str) -> None:
    started = time.thread_time()
    attributions(answer, SOURCES)
    assert time.thread_time() - started < 5
