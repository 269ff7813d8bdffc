"""The parts of a long message that its question needs."""

from datetime import UTC, datetime

import pytest

from chat.recall.excerpts import excerpts, question_in

NOW = datetime(2026, 5, 12, tzinfo=UTC)
FILLER = "The weather was fine and nothing happened on that day. " * 100
FACT = "The safe in the cellar opens with 4711."
LONG = f"{FILLER}\n\n{FACT}\n\n{FILLER}"


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Which number opens the safe?", "Which number opens the safe?"),
        (f"{LONG}\n\nWhich number opens the safe?", "Which number opens the safe?"),
        (f"Which number opens the safe? {LONG}", "Which number opens the safe?"),
        (f"Is it fine? {LONG} ¿Con qué número se abre?", "¿Con qué número se abre?"),
        (f"{LONG}保险箱的号码是什么？", "保险箱的号码是什么？"),
        (LONG, ""),
        (f"{FILLER} Why? {FILLER}", ""),
        ("", ""),
    ],
)
def test_the_question_stands_at_an_end(text: str, question: str) -> None:
    assert question_in(text).endswith(question)
    assert bool(question_in(text)) == bool(question)


def test_the_part_with_the_words_of_the_question() -> None:
    found = excerpts(f"{LONG}\n\nWhich number opens the safe in the cellar?", limit=1_200, count=len, now=NOW)
    assert FACT in found
    assert len(found) <= 1_200


@pytest.mark.parametrize(
    "question",
    [
        "Can you summarize what happened with the safe in the cellar?",
        "Kannst du den ganzen Text über safe cellar übersetzen?",
        "¿Puedes resumir safe cellar?",
        "How high is Mount Everest in the Himalaya?",
        "Why?",
        "Tell me about the safe in the cellar.",
    ],
)
def test_no_part_stands_for_all(question: str) -> None:
    assert excerpts(f"{LONG}\n\n{question}", limit=1_200, count=len, now=NOW) == ""


def test_parts_stand_in_the_order_of_the_text() -> None:
    text = f"{FILLER}\n\nThe safe opens once a day.\n\n{FILLER}\n\n{FACT}\n\n{FILLER}\n\nWhich number opens the safe?"
    found = excerpts(text, limit=3_000, count=len, now=NOW)
    assert 0 <= found.index("once a day") < found.index(FACT)
