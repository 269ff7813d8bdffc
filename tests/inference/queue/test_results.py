"""The result columns: for any tokens, stop sequences and cuts, row and log have the same text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.backends.fake import FakeVocabulary
from inference.engine.params import SamplingParams, SequenceParams
from inference.engine.text.citation_filter import citation_labels
from inference.engine.text.detokenizer import Detokenizer
from inference.models import Generation
from inference.queue.results import CANCELLED, FinalText, device_runs, end_entry, final_text, row_columns
from inference.token_stream.entries import EndEntry, TokenEntry
from inference.token_stream.reader import replay
from tests.inference.making import PARAMS, tokens

VOCABULARY = FakeVocabulary()


def answered(data: bytes, params: SequenceParams) -> tuple[list[TokenEntry], FinalText]:
    """The tokens a runner would give out for these bytes, one token each, and its last word."""
    assembler = Detokenizer.of(params)
    entries: list[TokenEntry] = []
    for index, token in enumerate(VOCABULARY.encode(data.decode("utf-8", "replace"), special=False), start=1):
        entries.append(TokenEntry(index=index, token=token, text=assembler.push(VOCABULARY.piece(token))))
        if assembler.stopped:
            break
    return entries, FinalText(assembler.flush(), assembler.n_kept)


texts = st.text(st.sampled_from("ab é🙂\n")).map(str.encode)
stops = st.lists(st.text(st.sampled_from("ab é🙂"), min_size=1, max_size=3), max_size=3)


def with_stop(stop: list[str], *, trim_start: bool) -> SequenceParams:
    return SequenceParams(sampling=SamplingParams(seed=1), stop=stop, trim_start=trim_start)


@given(texts, stops, st.booleans(), st.integers(0, 40))
def test_row_and_log_have_the_same_text_for_any_bytes(data: bytes, stop: list[str], trim: bool, after: int) -> None:
    params = with_stop(stop, trim_start=trim)
    entries, last = answered(data, params)
    columns = row_columns(CANCELLED, entries, params, vocabulary=VOCABULARY, last=last)
    row = Generation(**columns)
    live: list[TokenEntry | EndEntry] = [*entries, end_entry(columns, entries)]
    assert "".join(entry.text for entry in live) == row.text
    replayed = [entry for entry in replay(row, 0) if isinstance(entry, TokenEntry | EndEntry)]
    assert [entry.text for entry in replayed] == [entry.text for entry in live]
    late = list(replay(row, after))
    assert [entry for entry in late if isinstance(entry, TokenEntry)] == replayed[after:-1]
    assert late[-1] == live[-1]
    decoded = VOCABULARY.text(row.output_ids)
    assert (decoded.lstrip() if trim else decoded) == row.text


labelled = st.lists(st.sampled_from(["[1]", " [7]", "[", "7", "]", "a", " b", "é", "\n"]), max_size=12).map("".join)
cuts_labels = st.lists(st.sampled_from(["[7", "]", "a", "7] b"]), max_size=2)


@given(labelled, cuts_labels)
def test_labels_taken_out_are_missing_from_every_text_and_from_no_prompt(said_text: str, stop: list[str]) -> None:
    params = SequenceParams(sampling=SamplingParams(seed=1), stop=stop, highest_label=2)
    entries, last = answered(said_text.encode(), params)
    columns = row_columns(CANCELLED, entries, params, vocabulary=VOCABULARY, last=last)
    assert columns == row_columns(CANCELLED, entries, params, vocabulary=VOCABULARY) | {
        "finished_at": columns["finished_at"]
    }
    row = Generation(**columns)
    live: list[TokenEntry | EndEntry] = [*entries, end_entry(columns, entries)]
    assert "".join(entry.text for entry in live) == row.text
    assert [e.text for e in replay(row, 0) if isinstance(e, TokenEntry | EndEntry)] == [entry.text for entry in live]
    assert set(row.labels) == citation_labels(row.text) <= {1}
    unlabelled = Detokenizer(stop)
    raw = "".join(unlabelled.push(VOCABULARY.piece(token.token)) for token in entries) + unlabelled.flush()
    assert VOCABULARY.text(row.output_ids) == raw


def test_labels_are_kept_only_of_answers_that_were_checked_for_them() -> None:
    assert row_columns(CANCELLED, tokens("a [1]"), PARAMS, vocabulary=VOCABULARY)["labels"] == []


@given(texts, stops, st.booleans())
def test_the_final_text_is_computed_from_the_tokens(data: bytes, stop: list[str], trim: bool) -> None:
    params = with_stop(stop, trim_start=trim)
    entries, last = answered(data, params)
    assert final_text(VOCABULARY, entries, params) == last


def test_without_a_vocabulary_the_row_holds_the_streamed_text() -> None:
    columns = row_columns(CANCELLED, tokens("abc"), PARAMS, vocabulary=None)
    row = Generation(**columns)
    assert (row.text, row.output_ids) == ("abc", [97, 98, 99])


def test_devices_are_listed_in_order() -> None:
    entries = [*tokens("ab"), *tokens("c", device="gpu"), *tokens("d")]
    runs = [{"device": "cpu", "tokens": 2}, {"device": "gpu", "tokens": 1}, {"device": "cpu", "tokens": 1}]
    assert device_runs(entries) == runs
    assert device_runs([]) == []


@pytest.mark.parametrize("text", ["a\0b", "\0"])
def test_a_nul_in_the_held_back_text_can_be_stored(text: str) -> None:
    params = with_stop([text + "!"], trim_start=False)
    entries = [
        TokenEntry(index=i, token=t, text="") for i, t in enumerate(VOCABULARY.encode(text, special=False), start=1)
    ]
    columns = row_columns(CANCELLED, entries, params, vocabulary=VOCABULARY)
    assert "\0" not in columns["text"]
    assert columns["text"] == text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    assert isinstance(end_entry(columns, entries), EndEntry)
