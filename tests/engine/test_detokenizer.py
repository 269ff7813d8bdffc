"""Text that grows token by token: whole characters, stop strings, the same text however it is cut."""

import codecs
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.text.detokenizer import Detokenizer

# Few letters, so that stop sequences and their prefixes really occur; and characters of 2, 3 and 4 bytes.
WORDS = st.text(alphabet="ab\n é漢😀", max_size=30)
STOPS = st.lists(st.text(alphabet="ab\né😀", min_size=1, max_size=4), max_size=3)
CUTS = st.lists(st.integers(min_value=0, max_value=200), max_size=12)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def assemble(pieces: list[bytes], stop: list[str], *, trim_start: bool = False) -> tuple[str, Detokenizer]:
    assembler = Detokenizer(stop, trim_start=trim_start)
    released = "".join(assembler.push(piece) for piece in pieces)
    return released + assembler.flush(), assembler


def up_to_stop(text: str, stop: list[str]) -> str:
    """The rule in its simplest form: the first complete stop string, read character by character, ends the text."""
    for end in range(1, len(text) + 1):
        found = [each for each in stop if text[:end].endswith(each)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@given(text=WORDS, stop=STOPS, cuts=CUTS)
def test_any_cut_gives_the_text_up_to_the_first_stop_string(text: str, stop: list[str], cuts: list[int]) -> None:
    assert assemble(pieces_of(text.encode(), cuts), stop)[0] == up_to_stop(text, stop)


@given(text=WORDS, stop=STOPS, cuts=CUTS)
def test_what_was_released_is_never_taken_back(text: str, stop: list[str], cuts: list[int]) -> None:
    assembler = Detokenizer(stop)
    expected = up_to_stop(text, stop)
    released = ""
    for piece in pieces_of(text.encode(), cuts):
        released += assembler.push(piece)
        assert expected.startswith(released)
        assert "�" not in released


@given(text=WORDS, stop=STOPS, cuts=CUTS, at=st.integers(0, 20))
def test_a_replay_goes_on_like_the_uninterrupted_run(text: str, stop: list[str], cuts: list[int], at: int) -> None:
    pieces = pieces_of(text.encode(), cuts)
    whole = Detokenizer(stop)
    parts = [whole.push(piece) for piece in pieces]
    replayed = Detokenizer(stop)
    for piece in pieces[:at]:
        replayed.push(piece)
    assert [replayed.push(piece) for piece in pieces[at:]] == parts[at:]
    assert (replayed.flush(), replayed.stopped, replayed.n_kept) == (whole.flush(), whole.stopped, whole.n_kept)


@given(text=WORDS, stop=STOPS, cuts=CUTS)
def test_the_kept_pieces_are_the_beginning_of_the_text(text: str, stop: list[str], cuts: list[int]) -> None:
    pieces = pieces_of(text.encode(), cuts)
    final, assembler = assemble(pieces, stop)
    kept = b"".join(pieces[: assembler.n_kept])
    assert final.encode().startswith(kept)
    if assembler.n_kept < len(pieces):
        following = kept + pieces[assembler.n_kept]
        assert not final.encode().startswith(following), "one more piece would still be text"


@given(text=WORDS, cuts=CUTS)
def test_trimming_takes_the_white_space_of_the_start_only(text: str, cuts: list[int]) -> None:
    assert assemble(pieces_of(text.encode(), cuts), [], trim_start=True)[0] == text.lstrip()


@given(data=st.binary(max_size=20), cuts=CUTS)
def test_any_bytes_decode_as_in_python_but_for_an_incomplete_end(data: bytes, cuts: list[int]) -> None:
    expected = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    assert assemble(pieces_of(data, cuts), [])[0] == expected


def test_an_emoji_comes_when_its_last_byte_comes() -> None:
    assembler = Detokenizer()
    assert [assembler.push(bytes([byte])) for byte in "😀".encode()] == ["", "", "", "😀"]


@pytest.mark.parametrize(
    ("text", "n_bytes", "expected"),
    [("a😀", 4, "a"), ("𠮷𠮷", 6, "𠮷"), ("né", 2, "n"), ("日本", 5, "日"), ("👨‍👩", 9, "👨‍"), ("ж", 1, "")],
)
@pytest.mark.parametrize("stop", [[], ["STOP"]])
def test_an_incomplete_last_character_is_left_out(text: str, n_bytes: int, expected: str, stop: list[str]) -> None:
    pieces = [bytes([byte]) for byte in text.encode()[:n_bytes]]
    final, detokenizer = assemble(pieces, stop)
    assert final == expected
    assert detokenizer.n_kept == len(expected.encode()), "its pieces do not count as text"


def test_invalid_bytes_are_replaced_where_they_stand() -> None:
    assert assemble([b"a\xff", b"b\xc3", b"c\xe2\x82"], [])[0] == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("stop", "text", "expected"),
    [
        ([" "], " Paris is", "Paris"),
        (["  "], "   a  b", "a"),
        ([" Paris"], " Paris or Paris", "Paris or"),
        (["\n"], "\n\nParis\nis", "Paris"),
        (["\n\n"], " \n\n\nParis\n\nis", "Paris"),
        ([" ", "is"], " this", "th"),
        (["\nUser:"], " \nUser: hello", ""),
        (["\t"], "\t\tcell\tcell", "cell"),
    ],
)
@given(cuts=CUTS)
def test_the_leading_white_space_of_a_trimmed_answer_matches_no_stop_sequence(
    stop: list[str], text: str, expected: str, cuts: list[int]
) -> None:
    assert assemble(pieces_of(text.encode(), cuts), stop, trim_start=True)[0] == expected


@pytest.mark.parametrize("stop", [[" "], [" a"], ["\n"]])
def test_white_space_that_is_text_matches(stop: list[str]) -> None:
    final, detokenizer = assemble([(stop[0] + "b").encode()], stop)
    assert (final, detokenizer.stopped) == ("", True)


def test_a_stop_string_over_three_tokens_is_never_seen() -> None:
    assembler = Detokenizer(["\nUser:"])
    assert [assembler.push(piece) for piece in (b"Paris.", b"\n", b"User", b": and")] == ["Paris.", "", "", ""]
    assert assembler.stopped
    assert assembler.flush() == ""
    assert assembler.n_kept == 1


def test_what_only_looked_like_a_stop_string_is_released() -> None:
    assembler = Detokenizer(["\nUser:"])
    assert [assembler.push(piece) for piece in (b"a\nUse", b"d car")] == ["a", "\nUsed car"]
    assert not assembler.stopped


def test_a_held_beginning_of_a_stop_string_is_text_when_the_answer_ends_there() -> None:
    assert assemble([b"see the User", b" \nUs"], ["\nUser:"])[0] == "see the User \nUs"


def test_the_stop_string_that_is_complete_first_counts() -> None:
    assert assemble([b"abcd"], ["abcd", "bc"])[0] == "a"
    assert assemble([b"ab", b"cd"], ["abcd", "bc"])[0] == "a"


def test_trimming_does_not_hide_a_stop_string() -> None:
    final, assembler = assemble([b"\n", b"User:"], ["\nUser:"], trim_start=True)
    assert (final, assembler.stopped, assembler.n_kept) == ("", True, 0)


def test_a_token_cut_by_a_stop_string_is_not_kept() -> None:
    final, assembler = assemble([b"one", b" two. STOP", b"x"], ["STOP"])
    assert final == "one two. "
    assert assembler.n_kept == 1


def test_tokens_after_the_stop_add_nothing() -> None:
    assembler = Detokenizer(["."])
    assembler.push(b"a.")
    assert assembler.push(b"more") == ""
    assert assembler.flush() == ""
