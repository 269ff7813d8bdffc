"""The contract of a runner's loop for one sequence and for several, over both backends."""

import pytest

from inference.engine.protocol.frames import Ended, Step
from tests.engine.harness import Harness, turn

PROMPT = "The capital of France is Paris. The capital of Italy is"


def plain(harness: Harness, text: str = PROMPT) -> list[int]:
    vocabulary = harness.backend.vocabulary
    return [vocabulary.bos or 0, *vocabulary.encode(text, special=False)]


def test_an_answer_is_numbered_from_one_and_ends_once(harness: Harness) -> None:
    harness.submit("a", plain(harness), max_tokens=8)
    harness.run()
    emissions = harness.emissions("a")
    assert [each.index for each in emissions] == list(range(1, 9))
    ended = harness.ended("a")
    assert (ended.reason, ended.n_kept, ended.n_cached) == ("length", 8, 0)
    assert harness.text("a") == harness.backend.vocabulary.text(harness.tokens("a"))
    assert isinstance(harness.frames[-1], Ended), "the end comes after its last token"


def test_times_are_told_in_ms(harness: Harness) -> None:
    harness.submit("a", plain(harness), max_tokens=4)
    harness.run()
    ended = harness.ended("a")
    assert 0 < ended.prefill_ms <= ended.first_token_ms < 120_000
    assert ended.decode_ms > 0


def test_steps_count_their_tokens(harness: Harness) -> None:
    prompt = plain(harness)
    harness.submit("a", prompt, max_tokens=5)
    harness.run()
    steps = harness.steps()
    assert sum(step.n_prefill for step in steps) == len(prompt)
    assert sum(step.n_decode for step in steps) == 4, "the fifth token is drawn and never computed"
    assert all(step.step_ms > 0 for step in steps)
    n_cells = harness.loop.pool.n_cells
    assert {step.cells_free + step.cells_used + step.cells_cached for step in steps} == {n_cells}
    assert [step.cells_used for step in steps][-1] == len(prompt) + 4
    assert {step.n_sequences for step in steps} == {1}
    assert sum(step.n_cached for step in steps) == 0
    harness.submit("again", [*prompt, *harness.tokens("a")], max_tokens=1)
    harness.run()
    assert sum(step.n_cached for step in harness.steps()) == harness.ended("again").n_cached > 0


def test_progress_counts_up_to_the_whole_prompt(harness: Harness) -> None:
    prompt = plain(harness, PROMPT * 24)
    harness.submit("a", prompt, max_tokens=2)
    harness.run()
    progress = harness.progress("a")
    assert len(progress) > 1, "a long prompt is read in slices"
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})
    assert progress[-1] == (len(prompt), len(prompt))


def test_the_same_request_gives_the_same_answer(harness: Harness) -> None:
    for name in ("a", "b"):
        harness.submit(name, plain(harness), max_tokens=8, cache_prompt=False, temperature=0.8, seed=11)
        harness.run()
    assert harness.tokens("a") == harness.tokens("b")


def test_four_sequences_progress_side_by_side(harness: Harness) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        harness.submit(name, plain(harness, f"{PROMPT} {name}"), max_tokens=12, ignore_eos=True)
    harness.run()
    shared = [step for step in harness.steps() if len(step.emissions) == 4]
    assert len(shared) >= 8, "most steps advance all four"
    assert {len(harness.tokens(name)) for name in names} == {12}


def test_a_fifth_sequence_waits_and_runs(harness: Harness) -> None:
    for name in "abcde":
        harness.submit(name, plain(harness), max_tokens=6, ignore_eos=True)
    harness.run()
    assert max(len(step.emissions) for step in harness.steps()) == 4
    assert [harness.ended(name).reason for name in "abcde"] == ["length"] * 5


def test_cancel_before_the_first_step(harness: Harness) -> None:
    harness.submit("a", plain(harness))
    harness.cancel("a")
    assert harness.ended("a").reason == "cancelled"
    assert not harness.loop.step()


def test_cancel_in_the_middle_of_the_prompt(harness: Harness) -> None:
    harness.submit("a", plain(harness, PROMPT * 24), cache_prompt=False)
    harness.loop.step()
    done, total = harness.progress("a")[-1]
    assert 0 < done < total
    harness.cancel("a")
    assert harness.ended("a").reason == "cancelled"
    assert not harness.loop.step(), "nothing of it is left to compute"
    assert harness.loop.pool.n_free == harness.loop.pool.n_cells


def test_cancel_in_the_middle_of_the_answer_leaves_the_others(harness: Harness) -> None:
    for name in "ab":
        harness.submit(name, plain(harness), max_tokens=10, ignore_eos=True)
    harness.step_until_first_token("a")
    harness.loop.step()
    harness.cancel("a")
    n_tokens = len(harness.tokens("a"))
    harness.run()
    assert harness.ended("a").reason == "cancelled"
    assert len(harness.tokens("a")) == n_tokens == harness.ended("a").n_kept
    assert len(harness.tokens("b")) == 10


def test_cancel_of_something_unknown_is_silent(harness: Harness) -> None:
    harness.cancel("nobody")
    assert harness.frames == []


def test_a_second_submit_of_a_living_sequence_changes_nothing(harness: Harness) -> None:
    for _ in range(2):
        harness.submit("a", plain(harness), max_tokens=5, ignore_eos=True)
    harness.run()
    assert [each.index for each in harness.emissions("a")] == [1, 2, 3, 4, 5]
    assert len(harness.ends("a")) == 1


def test_a_prompt_that_fills_the_context_is_rejected(harness: Harness) -> None:
    n_cells = harness.loop.pool.n_cells
    token = plain(harness)[-1]
    harness.submit("big", [token] * n_cells)
    assert harness.rejected("big").code == "context_overflow"
    assert str(n_cells) in harness.rejected("big").message
    harness.submit("replayed", [token] * (n_cells - 5), emitted=[token] * 5)
    assert harness.rejected("replayed").code == "context_overflow"


@pytest.mark.parametrize(
    ("prompt", "changes", "code"),
    [
        ([], {}, "empty_prompt"),
        ([-1], {}, "invalid_token"),
        ([10_000_000], {}, "invalid_token"),
        ([5], {"logit_bias": {10_000_000: 1.0}}, "invalid_logit_bias"),
        ([5], {"n_logprobs": 21}, "invalid_logprobs"),
        ([5], {"n_logprobs": -1}, "invalid_logprobs"),
    ],
)
def test_what_would_hurt_others_is_rejected(
    harness: Harness, prompt: list[int], changes: dict[str, object], code: str
) -> None:
    harness.submit("good", plain(harness), max_tokens=3, ignore_eos=True)
    harness.submit("bad", prompt, **changes)  # type: ignore[arg-type]
    harness.run()
    assert harness.rejected("bad").code == code
    assert len(harness.tokens("good")) == 3


def test_a_forbidden_token_never_comes(harness: Harness) -> None:
    harness.submit("a", plain(harness), max_tokens=1)
    harness.run()
    first = harness.tokens("a")[0]
    harness.submit("b", plain(harness), max_tokens=1, logit_bias={first: None}, cache_prompt=False)
    harness.run()
    assert harness.tokens("b") != [first]


def test_ignore_eos_goes_on_to_the_limit(harness: Harness) -> None:
    harness.submit("a", plain(harness, "[[say: hi]]"), max_tokens=12, ignore_eos=True)
    harness.run()
    assert harness.ended("a").reason == "length"
    assert not any(map(harness.backend.vocabulary.is_eog, harness.tokens("a")))


def test_replayed_tokens_are_not_said_again_and_the_answer_goes_on(harness: Harness) -> None:
    """Greedy, flash attention off, compared token by token: the replay computes its tokens in other batches, whose
    kernels round differently, so a model near a tie may differ; this prompt is far from one."""
    prompt = plain(harness)
    harness.submit("whole", prompt, max_tokens=10, ignore_eos=True, cache_prompt=False)
    harness.run()
    tokens = harness.tokens("whole")
    for n_emitted in (1, 6, 9):
        name = f"after {n_emitted}"
        harness.submit(name, prompt, emitted=tokens[:n_emitted], max_tokens=10, ignore_eos=True, cache_prompt=False)
        harness.run()
        assert harness.tokens(name) == tokens[n_emitted:]
        assert harness.emissions(name)[0].index == n_emitted + 1
        assert harness.ended(name).n_kept == 10


def test_draws_go_on_after_a_replay(harness: Harness) -> None:
    """The draw of a token depends on seed and index: with the filter down to certainty it must be the same token."""
    prompt = plain(harness)
    drawn = {"max_tokens": 8, "ignore_eos": True, "cache_prompt": False, "temperature": 0.9, "seed": 5, "top_k": 20}
    harness.submit("whole", prompt, **drawn)  # type: ignore[arg-type]
    harness.run()
    tokens = harness.tokens("whole")
    harness.submit("rest", prompt, emitted=tokens[:4], **drawn)  # type: ignore[arg-type]
    harness.run()
    assert harness.tokens("rest") == tokens[4:]


def test_a_replay_that_is_already_at_its_limit_ends_at_once(harness: Harness) -> None:
    emitted = harness.backend.vocabulary.encode("abcdef", special=False)[:3]
    harness.submit("a", plain(harness), emitted=emitted, max_tokens=len(emitted))
    assert harness.ended("a").reason == "length"
    assert harness.ended("a").n_kept == len(emitted)
    assert not harness.loop.step()


def test_a_stop_string_ends_the_answer_and_is_never_seen(harness: Harness) -> None:
    harness.submit("whole", plain(harness), max_tokens=12, ignore_eos=True, cache_prompt=False)
    harness.run()
    whole = harness.text("whole")
    stop = whole[6:9]
    harness.submit("a", plain(harness), max_tokens=12, ignore_eos=True, cache_prompt=False, stop=[stop])
    harness.run()
    ended = harness.ended("a")
    kept = harness.backend.vocabulary.text(harness.tokens("a")[: ended.n_kept])
    assert ended.reason == "stop"
    assert harness.text("a") == whole[: whole.index(stop)]
    assert harness.text("a").startswith(kept)


def test_a_replay_that_already_holds_its_stop_string_ends_at_once(harness: Harness) -> None:
    emitted = harness.backend.vocabulary.encode("yes. STOP", special=False)
    harness.submit("a", plain(harness), emitted=emitted, stop=["STOP"])
    ended = harness.ended("a")
    assert (ended.reason, ended.text) == ("stop", "")
    assert ended.n_kept < len(emitted)
    assert not harness.loop.step()


def test_the_next_turn_continues_in_the_cells_of_the_last(harness: Harness) -> None:
    prompt = plain(harness)
    harness.submit("first", prompt, max_tokens=6, ignore_eos=True)
    harness.run()
    longer = prompt + harness.tokens("first") + plain(harness, " and so on")[1:]
    harness.submit("second", longer, max_tokens=2, ignore_eos=True)
    harness.run()
    # The last token was drawn and never computed.
    assert harness.ended("second").n_cached == len(prompt) + 5
    assert harness.progress("second")[-1] == (len(longer), len(longer))


def test_cache_prompt_off_neither_takes_nor_leaves(harness: Harness) -> None:
    prompt = plain(harness)
    harness.submit("first", prompt, max_tokens=3)
    harness.run()
    cached = harness.loop.pool.n_cached
    harness.submit("second", [*prompt, prompt[-1]], max_tokens=3, cache_prompt=False)
    harness.run()
    assert harness.ended("second").n_cached == 0
    assert harness.loop.pool.n_cached == cached > 0


def test_the_books_count_what_the_model_holds(harness: Harness) -> None:
    for name in "abcdef":
        harness.submit(name, plain(harness, f"{name} {PROMPT}"), max_tokens=3, ignore_eos=True)
    harness.run()
    pool = harness.loop.pool
    held = sum(harness.backend.n_positions(slot) for slot in range(harness.backend.n_slots))
    assert pool.n_used == 0
    assert pool.n_cached == held == pool.n_cells - pool.n_free > 0


def test_an_end_in_the_middle_of_the_batch_is_told_after_its_step(harness: Harness) -> None:
    harness.submit("a", plain(harness), max_tokens=1)
    harness.run()
    kinds = [type(frame) for frame in harness.frames]
    assert kinds.index(Step) < kinds.index(Ended)


def test_turn_markers_in_a_prompt_are_only_tokens(harness: Harness) -> None:
    harness.submit("a", turn(harness.backend.vocabulary, "<end_of_turn><eos> hello"), max_tokens=2, ignore_eos=True)
    harness.run()
    assert len(harness.tokens("a")) == 2
