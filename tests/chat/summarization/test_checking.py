"""Texts that are taken for a summary, texts that are not, and the extract that takes their place."""

import time

import pytest

from chat.models import Role
from chat.prompting.history_notes import as_transcript
from chat.summarization.checking import problem_of
from chat.summarization.extract import HEADING, extract, statements

SOURCE = as_transcript(
    [
        (
            Role.USER,
            "Hi, I am Paula. Can you help me to plan a trip to Oslo from 12 to 16 May? My budget is 900 euros.",
        ),
        (
            Role.ASSISTANT,
            "Of course! The train from Hamburg takes about 17 hours. Do you want to see the Munch museum?",
        ),
        (Role.USER, "Yes, and I am allergic to fish. No, wait: we leave on 13 May, not on the 12th."),
        (Role.ASSISTANT, "Noted: 13 May, no fish, and the Munch museum. Shall I look for a hotel near the harbour?"),
    ]
)


@pytest.mark.parametrize(
    "summary",
    [
        "Paula plans a trip to Oslo from 13 to 16 May with 900 euros. She is allergic to fish. The hotel is open.",
        "- Trip to Oslo, 13 May\n- 900 euros\n- allergic to fish",
        "Paula will nach Oslo fahren, vom 13. bis 16. Mai, mit 900 Euro. Sie isst keinen Fisch.",
        "Paula viaja a Oslo del 13 al 16 de mayo con 900 euros. Es alérgica al pescado.",
        "They talked.",
    ],
)
def test_taken(summary: str) -> None:
    assert problem_of(summary, SOURCE) == ""


@pytest.mark.parametrize(
    ("summary", "problem"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("Paula plans a trip to Oslo. " * 12, "repeats itself"),
        ("\n".join(["- Oslo", "- May"] * 4), "repeats itself"),
        ("The user wants to go, and then " * 9 + "the end.", "repeats itself"),
        ("他们谈论了奥斯陆之行。" * 12, "repeats itself"),
        ("User: Hi, I am Paula.\nAssistant: Of course!", "transcript"),
        ("> Usuario: Hola\n> Asistente: Hola", "transcript"),
        ("Here it is:\n```\nOslo\n```", "code fence"),
        ('"""\nOslo', "code fence"),
        ("<|im_start|>user", "marks of a prompt"),
        ("Paula plans a trip. What would you like to know?", "question"),
        ("Paula plant eine Reise. Möchten Sie mehr wissen？", "question"),
        ("We met John Smith, Mary Jones and Peter Brown in 1987 at 45 Wall Street.", "not in the source"),
        (SOURCE.replace("User: ", "").replace("Assistant: ", "").removesuffix("?"), "not shorter"),
    ],
)
def test_refused(summary: str, problem: str) -> None:
    assert problem in problem_of(summary, SOURCE)


def test_a_summary_is_not_worse_than_the_extract() -> None:
    said = ["My dentist is Osei.", "Our cat is called Quillon.", "My locker has number 482."]
    source = " ".join(said) * 3
    assert problem_of("The user has a dentist, a cat and a locker.", source, said).startswith("it leaves out")
    assert problem_of("The dentist is Osei, the cat Quillon.", source, said) == ""
    assert statements([SOURCE], 0, "") == [
        "Hi, I am Paula.",
        "My budget is 900 euros.",
        "Yes, and I am allergic to fish.",
        "No, wait: we leave on 13 May, not on the 12th.",
    ]


def pieces_of(text: str) -> list[str]:
    middle = text.index("No, wait")
    return [text[:middle].rstrip(), text[middle:]]


def test_the_extract_has_the_users_facts_and_no_question_of_the_assistant() -> None:
    text = extract([SOURCE], 0, "", limit=1_000, count=len)
    lines = text.splitlines()
    assert lines[0] == HEADING
    assert "- My budget is 900 euros." in lines
    assert "- Yes, and I am allergic to fish." in lines
    assert lines.index("- Yes, and I am allergic to fish.") < lines.index(
        "- No, wait: we leave on 13 May, not on the 12th."
    )
    assert "Munch" not in text


def test_the_extract_goes_on_with_the_summary_before_and_in_the_middle_of_a_message() -> None:
    pieces = pieces_of(SOURCE)
    first = extract(pieces, 0, "", limit=1_000, count=len)
    second = extract(pieces, 1, first, limit=1_000, count=len)
    assert second.startswith(first)
    assert second.count(HEADING) == 1
    assert second.endswith("- No, wait: we leave on 13 May, not on the 12th.")
    assert "hotel" not in second, "what the assistant said"


def test_the_extract_keeps_to_its_limit_and_what_weighs_most() -> None:
    text = extract([SOURCE], 0, "", limit=140, count=len)
    assert len(text) <= 140
    assert "13 May" in text


@pytest.mark.parametrize("text", ["uuuu", "weather and wind", "今天天气很好"])
def test_an_extract_of_what_names_nothing_has_the_words_themselves(text: str) -> None:
    assert text in extract([f"User: {text}\n\nAssistant: Yes."], 0, "", limit=200, count=len)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("天气很好。我的储物柜是482号。我们走吧！", "我的储物柜是482号。"),
        ("天気がいいです。ロッカーは482番です。「はい。」と言いました。", "ロッカーは482番です。"),
        ("天气很好！储物柜是482号？不，是483号。", "不，是483号。"),
    ],
)
def test_sentences_end_without_a_space_where_a_script_has_none(text: str, sentence: str) -> None:
    lines = extract([f"User: {text}\n\nAssistant: Yes."], 0, "", limit=1_000, count=len).splitlines()
    assert f"- {sentence}" in lines
    assert statements([f"User: {text}"], 0, "") == [sentence]


def test_an_extract_of_nothing_is_what_there_was() -> None:
    assert extract(["Assistant: Yes."], 0, "", limit=200, count=len) == ""
    assert "They talked." in extract(["Assistant: Yes."], 0, "They talked.", limit=200, count=len)


@pytest.mark.parametrize(
    "text",
    [
        *("*" * 60_000, f"user{' ' * 60_000}x", f"user ({'x' * 60_000}", "<|end" * 12_000, f"{'- ' * 30_000}user:"),
        *("user (a) " * 6_000, "\n" * 60_000 + "x", "<" * 60_000, f"User{' ' * 60_000}: x\nAssistant{' ' * 60_000}: y"),
    ],
)
def test_long_summaries_are_checked_in_linear_time(text: str) -> None:
    started = time.thread_time()
    problem_of(text, SOURCE, ["I am Paula."])
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("speaker", ["User:", "**User**:", "  - user :", "Assistant (2 May, 10:00):", "> Usuario:"])
def test_a_summary_with_speakers_is_a_transcript(speaker: str) -> None:
    lines = f"{speaker} My budget is 900 euros.\n{speaker} I am allergic to fish."
    assert problem_of(lines, SOURCE) == "it is a transcript"
