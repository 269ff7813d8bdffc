"""Thoughts: the division of generated text, and everything that must not depend on how it arrives."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.backends.fake import FIRST_BYTE, START_OF_TURN, FakeVocabulary
from inference.engine.params import ThoughtMarks
from inference.engine.text.detokenizer import Detokenizer
from inference.engine.text.thought_splitter import spelled_control

VOCABULARY = FakeVocabulary()
TAGS = ThoughtMarks(opens=["<think>"], closes=["</think>"])
OPENED = ThoughtMarks(opens=["<think>"], closes=["</think>"], is_open=True)
CHANNELS = ThoughtMarks(
    opens=["|channel|analysis|message|", "|start|assistant|channel|analysis|message|"],
    closes=["|end|"],
    answers=["|start|assistant|channel|final|message|", "|channel|final|message|"],
    ends=["|end|"],
)


def divided(marks: ThoughtMarks | None, pieces: list[bytes], stop: list[str] | None = None) -> tuple[str, str, int]:
    """Thought, answer, and the number of kept pieces."""
    text = Detokenizer(stop or [], thought=marks)
    answer = "".join(text.push(piece) for piece in pieces)
    answer += text.flush()
    return text.take_thought(), answer, text.n_kept


@pytest.mark.parametrize(
    ("marks", "text", "thought", "answer"),
    [
        (TAGS, "<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        (TAGS, " \n<think>Hm.</think>Yes.", "Hm.", "Yes."),
        (TAGS, "Yes, <think> is a tag.</think>", "", "Yes, <think> is a tag.</think>"),
        (TAGS, "  Yes.", "", "  Yes."),
        (TAGS, "<think>a < b </thin </think>c", "a < b </thin", "c"),
        (TAGS, "<think>no end ", "no end", ""),
        (TAGS, "<think></think>Yes.", "", "Yes."),
        (TAGS, "<thi", "", "<thi"),
        (TAGS, "<thinking>", "", "<thinking>"),
        (OPENED, "Hm.\n</think>\nYes.", "Hm.", "Yes."),
        (OPENED, "Hm.", "Hm.", ""),
        (OPENED, "a</think>\n<think>b</think>c", "a\n\nb", "c"),
        (CHANNELS, "|channel|analysis|message|Hm.|end||start|assistant|channel|final|message|Yes.", "Hm.", "Yes."),
        (CHANNELS, "|channel|final|message|Yes.", "", "Yes."),
        (
            CHANNELS,
            "|channel|analysis|message|a|end||start|assistant|channel|analysis|message|b|end|"
            "|start|assistant|channel|final|message|c|end||start|assistant|channel|final|message|d",
            "a\n\nb",
            "c\n\nd",
        ),
    ],
)
def test_a_text_is_divided_at_its_marks(marks: ThoughtMarks, text: str, thought: str, answer: str) -> None:
    assert divided(marks, [text.encode()])[:2] == (thought, answer)
    assert divided(marks, [bytes([byte]) for byte in text.encode()])[:2] == (thought, answer)


WORDS = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "nk>", "\n", " ", "é", "a", "|end|", "|channel|", "final|message|"])
)


@given(WORDS, st.lists(st.integers(0, 60)), st.sampled_from([TAGS, OPENED, CHANNELS]), st.sampled_from([[], ["a"]]))
def test_the_division_does_not_depend_on_the_pieces(
    words: list[str], cuts: list[int], marks: ThoughtMarks, stop: list[str]
) -> None:
    data = "".join(words).encode()
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(borders)]
    assert divided(marks, pieces, stop)[:2] == divided(marks, [data], stop)[:2]


@given(WORDS, st.integers(0, 80), st.sampled_from([TAGS, OPENED, CHANNELS]))
def test_a_replay_continues_where_the_tokens_ended(words: list[str], cut: int, marks: ThoughtMarks) -> None:
    tokens = VOCABULARY.encode("".join(words), special=False)
    whole, replayed = Detokenizer(thought=marks), Detokenizer(thought=marks)
    before = [(whole.push_token(token, VOCABULARY), whole.take_thought()) for token in tokens[:cut]]
    assert before == [(replayed.push_token(token, VOCABULARY), replayed.take_thought()) for token in tokens[:cut]]
    rest = [(whole.push_token(token, VOCABULARY), whole.take_thought()) for token in tokens[cut:]]
    assert rest == [(replayed.push_token(token, VOCABULARY), replayed.take_thought()) for token in tokens[cut:]]
    assert (whole.flush(), whole.take_thought()) == (replayed.flush(), replayed.take_thought())


def test_stop_strings_and_labels_count_in_the_answer_alone() -> None:
    text = b"<think>stop [9] here</think>go [9] on stop never"
    detokenizer = Detokenizer(["stop"], highest_label=1, thought=TAGS)
    assert detokenizer.push(text) == "go on "
    assert detokenizer.stopped
    assert detokenizer.take_thought() == "stop [9] here"


def test_kept_pieces_end_before_a_stop_string_behind_a_thought() -> None:
    pieces = [b"<think>", b"Hm.", b"</think>", b"\n", b"Yes.", b"STOP", b"more"]
    assert divided(TAGS, pieces, ["STOP"]) == ("Hm.", "Yes.", 5)


def test_a_control_token_is_a_mark_and_its_spelling_is_not() -> None:
    sign = spelled_control("<start_of_turn>")
    marks = ThoughtMarks(opens=[f"{sign}thought\n"], closes=[sign])
    thought = VOCABULARY.encode("<start_of_turn>thought\nHm.<start_of_turn>Yes.", special=True)
    plain = VOCABULARY.encode("<start_of_turn>thought\nHm.<start_of_turn>Yes.", special=False)
    for tokens, expected in (
        (thought, ("Hm.", "Yes.")),
        (plain, ("", "<start_of_turn>thought\nHm.<start_of_turn>Yes.")),
        # A control token out of place is no text.
        ([FIRST_BYTE + 65, START_OF_TURN, FIRST_BYTE + 66], ("", "AB")),
    ):
        text = Detokenizer(thought=marks)
        answer = "".join(text.push_token(token, VOCABULARY) for token in tokens) + text.flush()
        assert (text.take_thought(), answer) == expected


def test_a_thought_at_its_limit_is_closed_by_forced_tokens() -> None:
    closing = VOCABULARY.encode("</think>", special=False)
    marks = ThoughtMarks(opens=["<think>"], closes=["</think>"], is_open=True, limit=3, limit_ids=closing)
    drawn = iter(VOCABULARY.encode("abcdef", special=False))
    emitted: list[int] = []
    for _ in range(3 + len(closing) + 3):
        # A runner that continues has the tokens alone.
        text = Detokenizer(thought=marks)
        for token in emitted:
            text.push_token(token, VOCABULARY)
        emitted.append(next(drawn) if text.forced_token is None else text.forced_token)
    assert VOCABULARY.text(emitted) == "abc</think>def"


def test_no_thought_at_all_is_closed_before_its_first_token() -> None:
    closing = VOCABULARY.encode("</think>", special=False)
    marks = ThoughtMarks(opens=["<think>"], closes=["</think>"], is_open=True, limit=0, limit_ids=closing)
    assert Detokenizer(thought=marks).forced_token == closing[0]
    assert Detokenizer(thought=TAGS).forced_token is None
