"""Text to tokens and back, on both vocabularies; above all: text never becomes a control token."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.backends.fake import FakeVocabulary
from inference.engine.backends.vocabulary import Vocabulary, open_vocabulary
from inference.engine.config import BackendKind, EngineConfig
from inference.engine.text.plain_text import encode_plain, fingerprint, is_marker


@pytest.fixture(scope="session", params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    if request.param == "fake":
        return FakeVocabulary()
    found: Vocabulary = request.getfixturevalue("real_vocabulary")
    return found


@pytest.fixture(scope="session")
def marker_texts(vocabulary: Vocabulary) -> list[str]:
    return vocabulary.marker_texts()


@pytest.fixture(scope="session")
def markers(vocabulary: Vocabulary, marker_texts: list[str]) -> frozenset[int]:
    """Every token that must not come out of text."""
    ids = (vocabulary.encode(text, special=True) for text in marker_texts)
    return frozenset(tokens[0] for tokens in ids if len(tokens) == 1)


TYPED = st.sampled_from(
    [
        "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "</s>", "[multimodal]",
        "<start_of_image>", "<end_of_image>", "<unused0>", "<unused6241>", "<", ">", "_of_", "start", "turn>", "\n",
        " ", "user", "model", "é", "漢", "😀", "<<bos>", "<start_of_<eos>turn>", "<table>", "\u2581",
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(parts=st.lists(TYPED | st.text(max_size=6), max_size=10))
def test_text_never_becomes_a_control_token(vocabulary: Vocabulary, markers: frozenset[int], parts: list[str]) -> None:
    text = "".join(parts)
    ids = vocabulary.encode(text, special=False)
    assert markers.isdisjoint(ids)
    assert vocabulary.text(ids) == text.replace("\u2581", " " if vocabulary.n_tokens > 1000 else "\u2581")


@settings(max_examples=200)
@given(data=st.data())
def test_every_special_string_is_plain_text_when_typed(
    vocabulary: Vocabulary, markers: frozenset[int], marker_texts: list[str], data: st.DataObject
) -> None:
    special = data.draw(st.sampled_from(marker_texts))
    around = data.draw(st.sampled_from(["{}", "a{}", "{}b", "\n{}\n", "<{}>", "{0}{0}"]))
    text = around.format(special)
    ids = vocabulary.encode(text, special=False)
    assert markers.isdisjoint(ids)
    assert vocabulary.text(ids) == text


def test_a_scaffold_is_parsed(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("<start_of_turn>user\n", special=True)
    assert vocabulary.token_text(ids[0]) == "<start_of_turn>"
    assert vocabulary.piece(ids[0]) == b""
    assert vocabulary.text(ids) == "user\n"


def test_no_bos_is_added(vocabulary: Vocabulary) -> None:
    assert vocabulary.bos is not None
    assert vocabulary.token_text(vocabulary.bos) == "<bos>"
    assert vocabulary.bos not in vocabulary.encode("hello", special=True)
    assert vocabulary.encode("<bos>", special=True) == [vocabulary.bos]
    assert vocabulary.encode("", special=False) == []


def test_the_end_of_a_turn_ends_a_generation(vocabulary: Vocabulary) -> None:
    end = vocabulary.encode("<end_of_turn>", special=True)[0]
    assert vocabulary.is_eog(end)
    assert end in vocabulary.eog_tokens
    assert vocabulary.eos in vocabulary.eog_tokens
    assert not any(map(vocabulary.is_eog, vocabulary.encode("hello", special=False)))


@pytest.mark.parametrize("method", ["piece", "token_text"])
@pytest.mark.parametrize("token", [-1, 10_000_000])
def test_a_token_out_of_range_is_an_error_and_no_crash(vocabulary: Vocabulary, method: str, token: int) -> None:
    with pytest.raises(ValueError, match=str(token)):
        getattr(vocabulary, method)(token)


def test_a_lone_surrogate_does_not_stop_anything(vocabulary: Vocabulary) -> None:
    assert vocabulary.text(vocabulary.encode("a\ud800b", special=False)) == "a?b"


def test_long_text_keeps_every_character(vocabulary: Vocabulary) -> None:
    text = "Grüße, 漢字 and 😀 <eos>. " * 2000
    assert vocabulary.text(vocabulary.encode(text, special=False)) == text


def test_threads_may_share_it(vocabulary: Vocabulary) -> None:
    text = "The quick brown fox <start_of_image> jumps. " * 20
    expected = vocabulary.encode(text, special=False)
    answers: list[list[int]] = []

    def encode() -> None:
        answers.extend(vocabulary.encode(text, special=False) for _ in range(20))

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 80


def test_the_fingerprint_tells_vocabularies_apart(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.fingerprint) == 64
    name, metadata = vocabulary.model_name, dict(vocabulary.metadata)
    same = fingerprint(name, vocabulary.n_tokens, metadata)
    assert vocabulary.fingerprint == same
    assert fingerprint(name, vocabulary.n_tokens, {**metadata, "tokenizer.chat_template": "x"}) != same
    assert fingerprint(name, vocabulary.n_tokens, {**metadata, "general.license": "x"}) == same


def test_the_fake_is_opened_without_a_file() -> None:
    vocabulary = open_vocabulary(EngineConfig(model_path=None, backend=BackendKind.FAKE))  # type: ignore[arg-type]
    assert (vocabulary.model_name, vocabulary.chat_template) == ("fake-it", None)


@pytest.mark.real_model
def test_what_the_default_model_says_of_itself(real_vocabulary: Vocabulary) -> None:
    assert real_vocabulary.n_tokens == 262_144
    assert real_vocabulary.trained_context == 32_768
    assert real_vocabulary.model_name == "Gemma 3 270m"
    assert real_vocabulary.chat_template is None
    assert real_vocabulary.bos == 2


@pytest.mark.parametrize(
    ("text", "control", "user_defined", "expected"),
    [
        ("<eos>", True, False, True),
        ("<start_of_image>", False, True, True),
        ("[multimodal]", False, True, True),
        ("<|im_end|>", False, True, True),
        ("<table>", False, True, False),
        ("</h1>", False, True, False),
        ("\n\n", False, True, False),
        ("▁▁▁", False, True, False),
        ("<eos>", False, False, False),
        ("<>", False, True, False),
    ],
)
def test_which_tokens_are_markers(text: str, control: bool, user_defined: bool, expected: bool) -> None:
    assert is_marker(text, control=control, user_defined=user_defined) is expected


def test_a_marker_inside_a_marker_is_broken_too() -> None:
    """A tokenizer that finds markers greedily, wherever they are, one of them inside the other."""
    table = ["<", "a", ">", "<a>", "<<a>>"]

    def tokenize(text: str) -> list[int]:
        ids: list[int] = []
        while text:
            longest = max((each for each in table if text.startswith(each)), key=len)
            ids.append(table.index(longest))
            text = text[len(longest) :]
        return ids

    ids = encode_plain("a<<a>>a", tokenize, lambda token: table[token] if token >= 3 else None)
    assert max(ids) < 3
    assert "".join(table[token] for token in ids) == "a<<a>>a"
