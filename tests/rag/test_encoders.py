"""Encoders in a process: each loaded once, however many ask at once; the tokenizer's pieces and the words it keeps."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chat.rag.vectors import embedding
from chat.rag.vectors.encoders import unigram
from chat.rag.vectors.encoders.packed_file import Pieces
from chat.rag.vectors.encoders.unigram import SPACE, UnigramTokenizer

UNKNOWN = 3
TEXTS = ["<s>", "<pad>", "</s>", "<unk>", SPACE, "b", "bud", "get", f"{SPACE}budget", "s", "\u4f1a", "\u4f1a\u8bae"]


@pytest.fixture
def tokenizer() -> UnigramTokenizer:
    scores = np.array([0, 0, 0, 0, -2, -6, -4, -4, -3, -2, -5, -6], np.float32)
    return UnigramTokenizer(Pieces(list(TEXTS), scores, 0, 2, 1, UNKNOWN, {ord("B"): "b", ord("\t"): " "}))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" \t ", []),
        ("budget", [f"{SPACE}budget"]),
        ("Budgets\tbudget", [f"{SPACE}budget", "s", f"{SPACE}budget"]),
        ("budbud", [SPACE, "bud", "bud"]),
        ("b?", [SPACE, "b", "<unk>"]),
        ("\u4f1a\u8bae\u4f1a", [SPACE, "\u4f1a\u8bae", "\u4f1a"]),
    ],
)
def test_pieces_of_the_highest_score(tokenizer: UnigramTokenizer, text: str, pieces: list[str]) -> None:
    for _ in range(2):  # the second time from the cache
        assert [TEXTS[number] for number in tokenizer.encode(text)] == pieces


@pytest.mark.parametrize("character", ["\u4f1a", "\u0e01", "x", "\U0001f600"])
def test_sentences_without_spaces_are_not_kept(tokenizer: UnigramTokenizer, character: str) -> None:
    for length in range(40, 240):
        assert len(tokenizer.encode(character * length)) >= length / 2
    assert tokenizer.cache == {}


def test_a_bounded_number_of_words_is_kept(tokenizer: UnigramTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unigram, "MAX_CACHED_WORDS", 10)
    for number in range(95):
        tokenizer.encode(str(number))
        assert 0 < len(tokenizer.cache) <= 10


def test_an_encoder_is_loaded_once_for_all_that_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loading: list[str] = []

    def slow(name: str, path: Path, *, is_own: bool) -> str:
        loading.append(name)
        time.sleep(0.1)
        return f"no {name}"

    monkeypatch.setattr(embedding, "_models", {})
    monkeypatch.setattr(embedding, "_loaded", slow)
    barrier = threading.Barrier(4)

    def reason(encoding: str) -> str:
        barrier.wait(10)
        return embedding.unavailable_reason(encoding)

    with ThreadPoolExecutor(4) as pool:
        reasons = list(pool.map(reason, ["a/1", "b/1", "a/0", "a/1"]))
    assert reasons == ["no a", "no b", "no a", "no a"]
    assert sorted(loading) == ["a", "b"]


@pytest.mark.parametrize("other", ["all-MiniLM-L6-v2", "older"])
def test_a_report_loads_no_encoder_because_another_one_is_loaded(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setattr(embedding, "target_encoding", lambda: "multilingual-e5-small/1")
    monkeypatch.setattr(embedding, "_encoder_name", lambda: "multilingual-e5-small")
    monkeypatch.setattr(embedding, "_models", {(other, None): "missing"})
    monkeypatch.setattr(embedding, "_path", lambda name, own_file: Path(__file__))
    monkeypatch.setattr(embedding, "_loaded", lambda *args, **kwargs: pytest.fail("an encoder was loaded"))
    assert embedding.unavailable_reason_without_loading() == ""
