"""Long texts are encoded in pieces: the tokens of the whole text, in time that grows with its length alone."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.engine.backends import llama_vocabulary
from inference.engine.backends.llama_vocabulary import LlamaVocabulary
from inference.engine.text import tokenizer_pieces
from inference.engine.text.tokenizer_pieces import LONGEST_RUN_CHARS, PIECE_CHARS, TextSplitter

USER_TOKENS = ["\n", "\n\n", "\n\n\n", "  ", "   ", "<b>", "</b>", "[multimodal]"]
RUNS = st.builds(lambda char, n: char * n, st.sampled_from("\n \t\r\v~-a"), st.integers(1, 70))
WORDS = st.sampled_from(
    ["<b>", "</b>", "<b", "b>", "<<b>", "<table>", "<start_of_image>", "<unused12>", "[multimodal]", "<bos>", "x", "é",
     "漢字", "<end_of_turn>", "<eos", "</s>", "[<bos>]", "😀", "1,2,ok", "hello", " world", "▁", "<\n>", "</", "\u00a0"]
)  # fmt: skip
TEXTS = st.lists(RUNS | WORDS | st.text(max_size=4), max_size=30).map("".join)


@pytest.fixture
def every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces end at every cut, not only at the first one after a thousand characters."""
    monkeypatch.setattr(tokenizer_pieces, "PIECE_CHARS", 0)


def test_cuts_lie_before_runs_and_bracketed_words_and_within_long_runs(every_cut: None) -> None:
    splitter = TextSplitter(USER_TOKENS)
    assert list(splitter.split("a b\n\nc   d<b>e<i>f[multimodal]")) == [
        "a b", "\n\nc", "   d", "<b>e<i>f", "[multimodal]",
    ]  # fmt: skip
    assert list(splitter.split("\n" * 7)) == ["\n\n\n", "\n\n\n", "\n"]


@pytest.mark.parametrize(
    ("user_tokens", "text"),
    [
        ([*USER_TOKENS, "a\nb"], "xa\nbx\n\n"),  # another spelling holds the line break
        (["\n", "\n\n\n"], "x\n\n\n\n"),  # two line breaks are no token: the next token depends on the run's length
        (["<b>", "b>c"], "a<b>c"),  # two spellings overlap
        (["<a<b>"], "x<a<b>"),
        (["foo"], "a foo"),  # neither shape
        ([], "a\n\nb"),
    ],
)
def test_no_cut_where_spellings_may_overlap(every_cut: None, user_tokens: list[str], text: str) -> None:
    assert list(TextSplitter(user_tokens).split(text)) == [text]


@given(text=TEXTS)
def test_pieces_joined_are_the_text(text: str) -> None:
    for bound_runs in (False, True):
        assert "".join(TextSplitter(USER_TOKENS, bound_runs=bound_runs).split(text * 9)) == text * 9


@pytest.mark.parametrize("unit", [" ", "a", "漢", "7", "?", "_", "\u3000", "é", "٣"])
def test_runs_of_one_kind_are_bounded(unit: str) -> None:
    text = "x" + unit * (3 * LONGEST_RUN_CHARS) + "y"
    pieces = list(TextSplitter((), bound_runs=True).split(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= LONGEST_RUN_CHARS + 1
    assert list(TextSplitter(()).split(text)) == [text]


@pytest.mark.real_model
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
@example(text="b></s>")  # user-defined in the file, a control token for llama.cpp
def test_the_real_vocabulary_gives_pieces_the_tokens_of_the_whole(real_vocabulary: LlamaVocabulary, text: str) -> None:
    for special in (False, True):
        splitter = real_vocabulary._splitters[special]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer_pieces, "PIECE_CHARS", 0)
            pieces = list(splitter.split(text))
        in_pieces = [token for piece in pieces for token in real_vocabulary._tokenize(piece, parse_special=special)]
        assert in_pieces == real_vocabulary._tokenize(text, parse_special=special)


def test_the_real_vocabulary_has_cuts(real_vocabulary: LlamaVocabulary) -> None:
    pieces = list(real_vocabulary._splitters[False].split("1,2,ok\n" * 2_000))
    assert len(pieces) > 10
    assert max(map(len, pieces)) <= PIECE_CHARS + len("1,2,ok\n")


HOSTILE = {
    "lines": "1,2,ok\n",
    "tags": "<b>",
    "markers": "<start_of_image>",
    "blanks between letters": "x" + " " * 999,
    "line breaks": "\n",
    "blank, line break": " \n",
    "tabs": "\ta",
    "two blanks": "a  ",
    "turns": "<start_of_turn>user\n",
    "table": "</td><td>7</td>\n",
}


@pytest.mark.real_model
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_time_grows_with_the_length_alone(real_vocabulary: LlamaVocabulary, unit: str) -> None:
    """Eight times the text in far less than the 64 times of a square; each is measured twice, in CPU time."""
    real_vocabulary.encode(unit * 2_000, special=False)

    def cpu_secs(n_chars: int) -> float:
        text = unit * (n_chars // len(unit))
        begin = time.thread_time()
        tokens = real_vocabulary.encode(text, special=False)
        assert real_vocabulary.text(tokens) == text
        return time.thread_time() - begin

    short = min(cpu_secs(12_500) for _ in range(2))
    long = min(cpu_secs(100_000) for _ in range(2))
    assert long < 24 * short


@pytest.mark.real_model
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_encoding_stops_at_its_limit(real_vocabulary: LlamaVocabulary, unit: str) -> None:
    text = unit * (200_000 // len(unit))
    everything = real_vocabulary.encode(text, special=False)
    first = real_vocabulary.encode(text, special=False, limit=500)
    assert 500 < len(first) <= 500 + 20 * PIECE_CHARS
    assert first == everything[: len(first)]


@pytest.mark.real_model
@pytest.mark.parametrize("unit", ["𠮷", "word ", ". Ab", "1"])
def test_a_piece_without_cuts_is_refused_after_its_beginning(
    real_vocabulary: LlamaVocabulary, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    lengths: list[int] = []
    tokenize = real_vocabulary._tokenize

    def counted(part: str, *, parse_special: bool) -> list[int]:
        lengths.append(len(part))
        return tokenize(part, parse_special=parse_special)

    monkeypatch.setattr(real_vocabulary, "_tokenize", counted)
    assert len(real_vocabulary.encode(unit * 100_000, special=False, limit=1_000)) > 1_000
    assert sum(lengths) <= 32_000


@pytest.mark.real_model
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_control_tokens_cut_a_long_text_as_the_tokenizer_does(real_vocabulary: LlamaVocabulary, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_vocabulary, "PIECE_CHARS", 0)
        assert real_vocabulary._separate_controls
        whole = real_vocabulary._tokenize(text, parse_special=True)
        assert real_vocabulary.encode(text, special=True) == whole
        for limit in (0, 1, 7):
            beginning = real_vocabulary.encode(text, special=True, limit=limit)
            assert len(beginning) > min(limit, len(whole) - 1)
