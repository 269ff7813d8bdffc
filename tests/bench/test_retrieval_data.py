"""The questions of ``make bench-retrieval``: enough of them in each language, and every answer is a line."""

from pathlib import Path

import pytest

from bench.retrieval_data import FOLDER, HELD_BACK, own

LANGUAGES = ("ar", "de", "en", "es", "fr", "ja", "zh")
SETS = {folder: {conversation.name: conversation for conversation in own(folder)} for folder in (FOLDER, HELD_BACK)}


def test_every_language_has_a_conversation_in_both_sets() -> None:
    assert {folder: tuple(sorted(names)) for folder, names in SETS.items()} == dict.fromkeys(SETS, LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_forty_questions_that_differ(language: str) -> None:
    questions = [question.text for names in SETS.values() for question in names[language].questions]
    assert len(questions) >= 40
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("folder", SETS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_answer_is_a_line(folder: Path, language: str) -> None:
    conversation = SETS[folder][language]
    assert len(conversation.off_topic) >= 6
    assert all(line.speaker and line.text and "#" not in line.text for line in conversation.lines)
    for question in conversation.questions:
        assert question.answers
        assert all(0 <= number < len(conversation.lines) for number in question.answers)
        # A question that repeats its line would only measure word matching.
        assert question.text not in {conversation.lines[number].text for number in question.answers}


@pytest.mark.parametrize("folder", SETS, ids=lambda folder: folder.name)
def test_labels_are_unique_in_a_file(folder: Path) -> None:
    for path in folder.glob("*.txt"):
        labels = [
            line.rpartition("#")[2] for line in path.read_text().splitlines() if line[:1] not in "?!=" and "#" in line
        ]
        assert len(labels) == len(set(labels)), path
