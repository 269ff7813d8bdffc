"""Kinds: comparing and folding texts whatever their case, composition, width and line breaks; in time that grows with
the length of the text alone."""

import random
import unicodedata

import pytest

from inference.text_forms import answer_digest, compared, composed, folded
from tests.growth import grows_linearly

MARKS = [mark for mark in map(chr, range(0x300, 0x20000)) if unicodedata.combining(mark)] + ["\u0f73", "\u0344"]


@pytest.mark.parametrize(
    ("written", "searched"),
    [
        ("Über das Café", "über das café"),
        ("Cafe\u0301", "CAFÉ"),
        ("STRASSE", "straße"),
        ("ＡＢＣ１２３", "abc123"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("ΟΔΟΣ", "οδος"),
        ("Ǆ", "ǆ"),
        ("ﬁnal", "FINAL"),
        ("Ạ\u0308", "ạ\u0308"),
        ("İstanbul", "i\u0307STANBUL"),
    ],
)
def test_forms_of_one_text_are_folded_to_one(written: str, searched: str) -> None:
    assert folded(written) == folded(searched)
    assert folded(folded(written)) == folded(written)


@pytest.mark.parametrize(("one", "other"), [("Café", "Cafe"), ("ı", "i"), ("ø", "o"), ("1", "l")])
def test_other_letters_stay_apart(one: str, other: str) -> None:
    assert folded(one) != folded(other)


def test_long_runs_of_marks_become_what_unicode_says() -> None:
    draw = random.Random(20)
    for _ in range(400):
        words = ("".join(draw.choices(MARKS, k=draw.choice([0, 1, 3, 31, 60]))) for _ in range(4))
        text = "".join(draw.choice("aé가ガẞﬁ") + marks for marks in words)
        assert composed(text) == unicodedata.normalize("NFC", text)
        assert folded(text) == unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", text).casefold())


@pytest.mark.parametrize(
    "unit", ["\u0301\u0323", "\u0f73", "\u0344\u0316", "\uff9e\u3099\u0323", "e\u0301", "가", "\r\n"]
)
@pytest.mark.parametrize("form", [composed, folded, compared])
def test_the_time_grows_with_the_length(unit: str, form: object) -> None:
    assert callable(form)
    assert grows_linearly(form, lambda n: "a" + unit * n)


def test_a_blank_answer_has_no_digest() -> None:
    assert answer_digest(" \r\n ") == ""
    assert answer_digest("Cafe\u0301\r\n") == answer_digest("Café")
    assert answer_digest("\ud800")  # half a surrogate pair may be in a text of a model
