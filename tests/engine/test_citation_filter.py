"""Labels in a growing text: unknown ones never show, the rest is left alone, the same however the text is cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.text.citation_filter import CitationFilter, citation_labels
from inference.engine.text.detokenizer import Detokenizer
from tests.engine.test_detokenizer import CUTS, pieces_of

TEXTS = st.lists(
    st.sampled_from(
        ["[", "]", "1", "2", "7", "12", "2024", ",", ";", "-", " ", "\n", "a", "é", ".", "[7]", "[1]", " [8]"]
    ),
    max_size=30,
).map("".join)
MARKED = st.lists(
    st.sampled_from(["[", "]", "(", "1", "7", ",", " ", "\n", "a", "`", "``", "```", "[7]", "[2]", "\n```\n"]),
    max_size=30,
).map("".join)
STOPS = st.lists(st.sampled_from(["]", "[7", "a", " [", "7]", "\n"]), max_size=2)


def filtered(text: str, highest: int = 2) -> str:
    labels = CitationFilter(highest)
    return labels.push(text) + labels.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He said so [7].", "He said so."),
        ("He said so [2].", "He said so [2]."),
        ("He said [1, 7] that", "He said [1] that"),
        ("He said [7; 2;1]", "He said [2, 1]"),
        ("[1][7] and [7][1] or [7] [8] done", "[1] and [1] or done"),
        ("from [1-3] to [5\u20139]", "from [1-2] to"),
        ("[ 1 ] and [ 7 ]", "[ 1 ] and"),
        ("on Friday[7] again", "on Friday again"),
        ("[7] Yes\n[8] No", "Yes\nNo"),
        ("no[0]ne", "none"),
        ("[[7]] and [[1]]", "[] and [[1]]"),
        ("[[7]9] and [2[7]]", "and [2]"),
        ("a [7]b", "a b"),
        ("Plan B[7], Q3[7], iPhone[7], e.g.[7] (so)[7]", "Plan B, Q3, iPhone, e.g. (so)"),
        ("rows [7], [x][7] and [1][7]", "rows, [x] and [1]"),
    ],
)
def test_unknown_labels_go_and_known_ones_stay(text: str, expected: str) -> None:
    assert filtered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[a] [x] [ ] [] [-] [1a] [1.5] [2024] [1, b]",
        "a link [7](https://example.org) and its text",
        "in `list[7]` and ``a ` b[7]``",
        "```python\nrows[7] = rows[0]\n```\n",
        "```\nnever closed [7]",
        "brackets [" + " " * 60 + "7]",
        "take list[7] or row_ids[7], then x[0], x[3][9], self.rows[8], my_find()[7], myRows[7] and rows2[7]",
    ],
)
def test_what_is_no_label_is_left_alone(text: str) -> None:
    assert filtered(text) == text


def test_an_index_cites_nothing() -> None:
    labels = CitationFilter(2)
    assert labels.push("list[1] said so [2].") == "list[1] said so [2]."
    assert labels.numbers == {2}


def test_code_ends_where_it_ends() -> None:
    assert filtered("`a[7]` b [7].\n```\nc[7]\n```\nd [7].") == "`a[7]` b.\n```\nc[7]\n```\nd."
    assert filtered("a stray ` opens code [7] in its line\nonly [7]") == "a stray ` opens code [7] in its line\nonly"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("as said [7", "as said"), ("as said [1", "as said [1"), ("as said [1, 7", "as said"), ("as [", "as [")],
)
def test_an_answer_that_ends_within_a_bracket(text: str, expected: str) -> None:
    assert filtered(text) == expected


def test_only_a_bracket_that_may_become_a_label_is_waited_for() -> None:
    labels = CitationFilter(2)
    parts = [labels.push(part) for part in ("said", " [", "1", "]", " and", " [", "a", "]", " [7", "]", ".", " ", "x")]
    assert parts == ["said", "", "", " [1]", " and", "", " [a", "]", "", "", ".", "", " x"]


@given(text=MARKED | TEXTS, cuts=CUTS, stop=STOPS)
def test_any_cut_gives_the_same_text(text: str, cuts: list[int], stop: list[str]) -> None:
    whole = Detokenizer(stop, highest_label=2)
    expected = whole.push(text.encode()) + whole.flush()
    assert stop or expected == filtered(text)
    assembler = Detokenizer(stop, highest_label=2)
    released = ""
    for piece in pieces_of(text.encode(), cuts):
        released += assembler.push(piece)
        assert expected.startswith(released), "something was taken back"
    assert released + assembler.flush() == expected


@given(text=TEXTS)
def test_no_unknown_label_shows_and_what_was_found_is_there(text: str) -> None:
    labels = CitationFilter(2)
    final = labels.push(text) + labels.flush()
    assert citation_labels(final) == labels.numbers <= {1, 2}
    # After "a" or "a1" it is an index, and after an index another one.
    assert not re.search(r"(?<![\w\]])\[[ ]*(?:7|12)[ ]*\](?!\()", final)
    assert filtered(final) == final


@given(text=TEXTS, cuts=CUTS, stop=STOPS, at=st.integers(0, 20))
def test_a_replay_goes_on_like_the_uninterrupted_run(text: str, cuts: list[int], stop: list[str], at: int) -> None:
    pieces = pieces_of(text.encode(), cuts)
    whole, replayed = Detokenizer(stop, highest_label=2), Detokenizer(stop, highest_label=2)
    parts = [whole.push(piece) for piece in pieces]
    for piece in pieces[:at]:
        replayed.push(piece)
    assert [replayed.push(piece) for piece in pieces[at:]] == parts[at:]
    assert (replayed.flush(), replayed.stopped, replayed.n_kept) == (whole.flush(), whole.stopped, whole.n_kept)


@given(text=MARKED | TEXTS)
def test_without_a_highest_label_nothing_is_touched(text: str) -> None:
    assembler = Detokenizer()
    assert assembler.push(text.encode()) + assembler.flush() == text


def test_stop_strings_are_looked_for_in_what_the_model_said() -> None:
    assembler = Detokenizer(["[7] end"], highest_label=2)
    assert [assembler.push(piece) for piece in (b"so [1] ", b"[7]", b" end", b"x")] == ["so [1]", "", " ", ""]
    assert assembler.stopped
    assert assembler.flush() == ""


@given(st.text(), st.integers(1, 99))
def test_labels_of_a_whole_text(text: str, label: int) -> None:
    plain = text.replace("`", "").replace("[", "")
    assert label in citation_labels(f"{plain} [{label}]{plain}")
