"""The fake model: the commands of its prompts, and answers that are a function of the tokens."""

import subprocess
import sys
import time

import pytest

from inference.engine.backends.backend import Slice
from inference.engine.backends.fake import FakeVocabulary
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.errors import BackendError
from inference.engine.process.client import PROJECT_ROOT
from tests.engine.harness import Harness, turn


def answer(prompt: str, **changes: object) -> str:
    harness = Harness.fake()
    harness.ask("a", prompt, **changes)
    return harness.run().text("a")


def raw_answer(prompt: str) -> str:
    harness = Harness.fake()
    harness.submit("a", harness.backend.vocabulary.encode(prompt, special=True))
    return harness.run().text("a")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hello", "You said: hello"),
        ("first line\nlast line\n", "You said: last line"),
        ("", "You said: "),
        ("[[say: good morning]]", "good morning"),
        ("[[say: two\nlines 😀]] please", "two\nlines 😀"),
        ("[[count: 5]]", "1 2 3 4 5 "),
        ("[[delay: 0]] hello", "You said: hello"),
        ("[[delay: 0]][[count: 2]]", "1 2 "),
    ],
)
def test_the_last_user_text_decides(prompt: str, expected: str) -> None:
    assert answer(prompt) == expected


def test_only_the_last_turn_counts() -> None:
    harness = Harness.fake()
    vocabulary = harness.backend.vocabulary
    history = turn(vocabulary, "[[say: old]]") + vocabulary.encode("old<end_of_turn>\n", special=True)
    harness.submit("a", history + turn(vocabulary, "new")[1:])
    assert harness.run().text("a") == "You said: new"
    assert harness.ended("a").reason == "stop"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Once upon a time", "You said: Once upon a time"),
        ("[[count: 3]]", "1 2 3 "),
        ("You are helpful.\n\nUser: one\nAssistant: two\nUser: three\nAssistant:", "You said: three"),
        ("User: [[say: x]]\nAssistant:", "x"),
    ],
)
def test_prompts_without_turns(prompt: str, expected: str) -> None:
    assert raw_answer(prompt) == expected


@pytest.mark.parametrize("prompt", ["[[count: 30]]", "tell me", "User: [[say: abc]]\nAssistant:"])
@pytest.mark.parametrize("n_emitted", [1, 2])
def test_a_raw_prompt_is_found_again_in_a_replay(prompt: str, n_emitted: int) -> None:
    harness = Harness.fake()
    tokens = harness.backend.vocabulary.encode(prompt, special=False)
    harness.submit("whole", tokens)
    whole = harness.run().tokens("whole")
    harness.submit("rest", tokens, emitted=whole[:n_emitted], cache_prompt=False)
    assert harness.run().tokens("rest") == whole[n_emitted:]


def test_a_delay_is_taken_by_every_step() -> None:
    harness = Harness.fake()
    harness.ask("a", "[[delay: 20]][[say: abc]]")
    began = time.monotonic()
    harness.run()
    assert time.monotonic() - began >= 4 * 0.020


def test_abort_kills_the_process() -> None:
    code = "from tests.engine.harness import Harness\nh = Harness.fake()\nh.ask('a', '[[abort]]')\nh.run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, timeout=60)
    assert done.returncode == -6, done.stderr.decode()


def test_a_gap_in_the_positions_is_an_error() -> None:
    backend = FakeBackend(n_cells=10, n_slots=1, batch_size=10)
    backend.decode([Slice(0, 0, [5, 6], 0)])
    with pytest.raises(BackendError, match="holds 2 tokens, the batch begins at 3"):
        backend.decode([Slice(0, 3, [7], 1)])


def test_a_batch_beyond_its_size_is_an_error() -> None:
    with pytest.raises(BackendError, match="3 tokens in a batch of 2"):
        FakeBackend(n_cells=10, n_slots=1, batch_size=2).decode([Slice(0, 0, [5, 6, 7], 1)])


def test_no_room_changes_nothing() -> None:
    backend = FakeBackend(n_cells=3, n_slots=2, batch_size=10)
    assert backend.decode([Slice(0, 0, [5, 6], 1)]) is not None
    assert backend.decode([Slice(1, 0, [5, 6], 1)]) is None
    assert (backend.n_positions(0), backend.n_positions(1)) == (2, 0)


def test_a_memory_trimmed_beyond_its_window_answers_garbage() -> None:
    vocabulary = FakeVocabulary()
    tokens = vocabulary.encode("[[say: fine]]" + "x" * 60, special=False)
    for window, expected in ((0, "f"), (16, "?")):
        backend = FakeBackend(n_cells=100, n_slots=1, batch_size=100, window=window)
        backend.decode([Slice(0, 0, tokens, 0)])
        backend.trim(0, 13)
        logits = backend.decode([Slice(0, 13, vocabulary.encode("]", special=False), 1)])
        assert logits is not None
        backend_says = vocabulary.text([int(logits[0].argmax())])
        assert backend_says == expected or window == 0


def test_its_vocabulary_is_bytes_and_gemmas_control_tokens() -> None:
    vocabulary = FakeVocabulary()
    ids = vocabulary.encode("<bos>é<end_of_turn>", special=True)
    assert [vocabulary.token_text(token) for token in ids] == ["<bos>", "<0xC3>", "<0xA9>", "<end_of_turn>"]
    assert vocabulary.text(ids) == "é"
    assert [vocabulary.is_eog(token) for token in ids] == [False, False, False, True]
    with pytest.raises(ValueError, match="token 261 is not one of 261"):
        vocabulary.piece(261)
