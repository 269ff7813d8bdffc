"""Draft tokens: their choice, their use, and the same answer with and without them."""

from collections.abc import Callable, Sequence
from itertools import accumulate, repeat
from typing import Any

import msgspec
import pytest

from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import Device, EngineConfig
from inference.engine.core.batch_cost import N_ROUNDS, ROWS, BatchCost
from inference.engine.grammar.matcher import GrammarCompiler
from inference.engine.grammar.sources import from_json_schema
from inference.engine.params import ThoughtMarks
from inference.engine.protocol.frames import Step
from inference.engine.sampling.prompt_lookup import PRIOR, PromptLookup
from tests.engine.harness import Harness, turn
from tests.engine.near_ties import assert_same_up_to_rounding

END = 1


# ---- drafts ----


@pytest.mark.parametrize(
    ("tokens", "draft"),
    [
        ([5, 6, 7, 8, 9, 5, 6], [7, 8, 9]),
        ([5, 6, 7, 0, 5, 6, 8, 0, 5, 6], [8, 0, 5]),  # the latest of equals
        ([4, 5, 6, 7, 0, 3, 5, 6, 8, 0, 4, 5, 6], [7, 0, 3]),  # the longest before the latest
        ([5, 6, 5, 6], [5, 6]),  # up to the end of the known tokens
        ([5, 6, END, 7, 5, 6], []),  # never an end of the answer
        ([5, 6, 7, END, 7, 5, 6], [7]),
        ([5, 6, 7], []),
        ([9, 6, 7, 8, 6], []),  # a single token is no repetition
        ([5], []),
    ],
)
def test_the_draft_is_what_followed_the_same_tokens(tokens: list[int], draft: list[int]) -> None:
    assert PromptLookup({END}).draft(tokens, 3) == draft


def test_a_growing_sequence_is_searched_to_its_end() -> None:
    lookup, tokens = PromptLookup(()), [1000 + n for n in range(700)]
    for token in [*range(20), *range(20)]:
        tokens.append(token)
        draft = lookup.draft(tokens, 4)
    assert draft == [0, 1, 2, 3]
    assert lookup.draft([*tokens, 0, 1], 4) == [2, 3, 4, 5]


def test_nothing_is_guessed_where_no_token_is_wanted() -> None:
    assert PromptLookup(()).draft([5, 6, 7, 5, 6], 0) == []


@pytest.mark.parametrize("at_most", [0, 3])
def test_odds_follow_what_came_of_guesses_tried_or_not(at_most: int) -> None:
    lookup, tokens = PromptLookup(()), [5, 6, 7, 8, 5, 6, 7]
    lookup.draft(tokens, at_most)
    before = lookup.odds
    assert before == PRIOR[3]
    lookup.draft([*tokens, 8], at_most)  # right
    lookup.draft([*tokens, 8, 0, 5, 6, 7], at_most)  # 5 was guessed behind four of the same
    assert lookup.odds == pytest.approx(before + 0.2 * (1 - before))


def test_wrong_guesses_lower_the_odds_of_their_kind_alone() -> None:
    lookup, tokens = PromptLookup(()), [5, 6, 100, 0, 5, 6]
    for token in range(100, 120):
        assert lookup.draft(tokens, 1) == [token]
        tokens = [*tokens, token + 1, -token, 5, 6]
    assert lookup.odds < 0.02
    lookup.draft([*tokens, 1, 2, 3, 7, 1, 2, 3], 1)
    assert lookup.odds == PRIOR[3]


# ---- when it pays ----


def measured(cost: Callable[[int], float], max_rows: int = 32) -> BatchCost:
    shapes = BatchCost(max_rows)
    while (n_rows := shapes.next_size) is not None:
        shapes.observe(cost(n_rows))
    return shapes


def odds_of(odds: float, n_drafted: int) -> list[float]:
    return list(accumulate(repeat(odds, n_drafted), lambda one, other: one * other))


def test_every_shape_is_measured_a_few_times_and_the_least_counts() -> None:
    """Every round was disturbed, each in other places."""
    rounds = ([300, 20, 300, 300, 300], [20, 300, 300, 20, 21], [300, 300, 20, 22, 300], [25, 21, 22, 23, 20])
    times = iter([float(ms) for each in rounds for ms in each])
    shapes = BatchCost(5)
    assert shapes.ms == []
    n_measured = 0
    while shapes.next_size is not None:
        shapes.observe(next(times))
        n_measured += 1
    assert n_measured == N_ROUNDS * sum(rows <= 5 for rows in ROWS)
    assert shapes.ms == [0.0, 20.0, 20.0, 20.0, 20.0, 20.0]


def test_rows_that_cost_nothing_are_all_used() -> None:
    assert measured(lambda _: 30.0).best_batch([odds_of(0.7, 7)]) == [7]


def test_rows_that_cost_as_much_as_steps_are_not() -> None:
    assert measured(lambda n: 10.0 * n).best_batch([odds_of(0.7, 7), odds_of(0.9, 7)]) == [0, 0]


def test_the_likeliest_guesses_go_first() -> None:
    shapes = measured(lambda n: 30.0 if n <= 4 else 100.0)
    assert shapes.best_batch([odds_of(0.3, 3), odds_of(0.9, 3)]) == [0, 2]


def test_two_alone_go_before_a_batch_of_two_that_is_dearer() -> None:
    """12, 28, 38 ms for one, two, three rows were measured on one machine."""
    shapes = measured(lambda n: {1: 12.0, 2: 28.0, 3: 38.0}.get(n, 37.0 + n))
    assert shapes.best_batch([[], []]) == [0, None]
    assert shapes.best_batch([[], []], spare_ms=15.0) == [0, 0], "with prompts waiting all go at once"


def test_guesses_beside_a_waiting_prompt_cost_little() -> None:
    shapes = measured(lambda n: 30.0 if n <= 4 else 45.0)
    assert shapes.best_batch([odds_of(0.95, 7)]) == [7]
    assert shapes.best_batch([odds_of(0.95, 7)], spare_ms=10.0) == [3]


def test_unknown_shapes_mean_one_row_each() -> None:
    assert BatchCost(32).best_batch([odds_of(0.9, 3)]) == [0]
    assert measured(lambda _: 30.0, max_rows=2).best_batch([[0.9]] * 3) == [0, 0, 0]


# ---- answers ----


def guessing(**changes: Any) -> Harness:  # noqa: ANN401  fields of the configuration
    harness = Harness.fake(draft_max=7, **changes)
    harness.loop._batch_cost.ms = [0.0, *[1.0] * harness.backend.max_outputs]
    return harness


def decode_steps(harness: Harness) -> list[Step]:
    return [step for step in harness.steps() if step.n_decode]


REPEATING = "[[say: to be or not to be or not to be or not to be]]"


def test_an_answer_that_repeats_itself_takes_fewer_steps_and_is_the_same() -> None:
    plain, harness = Harness.fake(), guessing()
    for each in (plain, harness):
        each.ask("a", REPEATING)
        each.run()
    assert harness.text("a") == plain.text("a") == "to be or not to be or not to be or not to be"
    assert harness.tokens("a") == plain.tokens("a")
    assert len(decode_steps(harness)) < len(decode_steps(plain)) / 2
    steps = decode_steps(harness)
    assert sum(step.n_accepted for step in steps) > 20
    assert sum(step.n_drafted for step in steps) >= sum(step.n_accepted for step in steps)


PERSON = {
    "type": "object",
    "properties": {"first_name": {"enum": ["Ann", "Bob"]}, "age_in_years": {"type": "integer", "maximum": 99}},
    "required": ["first_name", "age_in_years"],
    "additionalProperties": False,
}

PEOPLE = {"type": "array", "items": PERSON, "minItems": 3, "maxItems": 4}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("schema", [PERSON, {"const": {"a_name": "with a text"}}, {"type": "array", "items": PERSON}])
def test_text_that_a_grammar_leaves_no_choice_for_is_drafted(schema: dict[str, Any], temperature: float) -> None:
    plain, harness = Harness.fake(), guessing()
    options = {"grammar": from_json_schema(schema), "temperature": temperature, "seed": 3, "max_tokens": 90}
    for each in (plain, harness):
        each.ask("a", '[[say: [{"]]', **options)
        each.run()
    assert harness.tokens("a") == plain.tokens("a")
    assert harness.ended("a").reason == plain.ended("a").reason
    assert len(decode_steps(harness)) < len(decode_steps(plain)) * 0.6
    harness.loop.scheduler.check()


def test_forced_text_is_drafted_up_to_a_limit_and_not_within_a_thought() -> None:
    harness = guessing()
    grammar = from_json_schema({"const": "a text without any choice"})
    harness.ask("a", "Who?", grammar=grammar, max_tokens=5)
    thought = ThoughtMarks(opens=["<t>"], closes=["</t>"])
    harness.ask("b", "[[say: <t>Hm, hm.</t>no]]", grammar=grammar, thought=thought)
    harness.run()
    assert (harness.text("a"), harness.ended("a").reason) == ('"a te', "length")
    assert harness.text("b") == '"a text without any choice"'


@pytest.mark.parametrize("n_out", [1, 2, 5, 9, 30, 31])
def test_a_limit_within_a_guess_ends_the_answer_there(n_out: int) -> None:
    harness = guessing()
    harness.ask("a", REPEATING, max_tokens=n_out)
    harness.run()
    assert len(harness.tokens("a")) == n_out
    assert harness.ended("a").reason == "length"
    harness.loop.scheduler.check()


def test_a_stop_string_within_a_guess_ends_the_answer_there() -> None:
    harness = guessing()
    harness.ask("a", REPEATING, stop=["be or not to be or n"])
    harness.run()
    assert harness.text("a") == "to "
    harness.loop.scheduler.check()


def test_the_end_of_a_pool_is_no_place_for_guesses() -> None:
    harness = guessing(context_size=160, batch_size=32)
    harness.ask("a", "x" * 90, ignore_eos=True, max_tokens=500)
    harness.run()
    assert harness.ended("a").reason == "length"
    assert len(turn(harness.backend.vocabulary, "x" * 90)) + len(harness.tokens("a")) == 160


def test_a_model_without_room_for_guesses_goes_on_without_them() -> None:
    harness = guessing()
    decode, n_refused = harness.backend.decode, 0

    def refuse(slices: Sequence) -> object:  # type: ignore[type-arg]
        nonlocal n_refused
        if any(each.n_outputs > 1 for each in slices):
            n_refused += 1
            return None
        return decode(slices)

    harness.backend.decode = refuse  # type: ignore[method-assign, assignment]
    harness.ask("a", REPEATING)
    harness.run()
    assert n_refused > 3
    assert harness.text("a").endswith("not to be")


def test_shapes_are_measured_while_nothing_runs() -> None:
    harness = Harness.fake(draft_max=7, parallel=2)
    while harness.loop.work_while_idle():
        pass
    assert len(harness.loop._batch_cost.ms) > 4
    harness.loop.scheduler.check()
    assert harness.backend.n_positions(0) == 0


def test_a_batch_no_larger_than_the_answers_is_enough() -> None:
    """Batches are measured up to the largest size, and drafts fit into it."""
    harness = Harness.fake(batch_size=4, parallel=4, draft_max=7)
    while harness.loop.work_while_idle():
        pass
    assert len(harness.loop._batch_cost.ms) == 1 + 4
    harness.ask("a", REPEATING)
    harness.run()
    assert harness.text("a") == "to be or not to be or not to be or not to be"


def test_guesses_leave_the_prompts_of_their_batch_a_row_each() -> None:
    """A card computes both in one batch, and more rows of logits than were reserved end the process."""
    harness = guessing(parallel=4, device=Device.GPU)
    harness.ask("a", REPEATING)
    while len(harness.tokens("a")) < 10:
        harness.loop.step()
    for name in "bcd":
        harness.ask(name, f"{name}, short")
    harness.run()
    assert any(step.n_drafted and step.n_prefill for step in harness.steps())
    assert harness.text("a") == "to be or not to be or not to be or not to be"


@pytest.mark.parametrize(("n_chars", "at_least"), [(150, 0), (2000, 5)])
def test_guesses_go_on_beside_a_long_prompt_and_not_beside_short_ones(n_chars: int, at_least: int) -> None:
    """A short prompt's first token is one slice away; a long prompt is hardly delayed by a few rows."""
    harness = guessing(parallel=4, context_size=8192)
    harness.loop._batch_cost.ms = [0.0, *(1 + n / 100 for n in range(harness.backend.max_outputs))]
    harness.ask("a", "[[say: " + "to be or not " * 20 + "]]", max_tokens=200)
    while len(harness.tokens("a")) < 100:
        harness.loop.step()
    for name in "bcd":
        harness.ask(name, name * n_chars, max_tokens=1)
    n_drafted = n_beside = 0
    while not harness.tokens("d"):
        harness.loop.step()
        step = harness.steps()[-1]
        is_beside = step.n_decode > 0 and any(each.n_pending for each in harness.loop.scheduler.sequences.prefilling)
        n_beside += is_beside
        n_drafted += step.n_drafted if is_beside else 0
    assert n_beside > 0
    assert n_drafted >= at_least if at_least else n_drafted == 0


# ---- the real model ----

LINE = "The caterer wants half of the 4,000 euros in advance, and the hall is taken in April."


@pytest.mark.real_model
def test_the_real_model_says_the_same_with_guesses(real_config: EngineConfig) -> None:
    """Rows of a batch in which an answer is guessed at are computed by other kernels: near ties may fall otherwise,
    so the answer is one that is sure of itself."""
    config = msgspec.structs.replace(real_config, context_size=1024, parallel=2, draft_max=7)
    backend = LlamaBackend(config, n_slots=4)
    prompt = backend.vocabulary.encode(f"<bos>{LINE} " * 3, special=True)
    for temperature in (0.0, 0.8):
        runs: list[Harness] = []
        for draft_max in (0, 7):
            harness = Harness(backend, msgspec.structs.replace(config, draft_max=draft_max))
            harness.loop._batch_cost.ms = [0.0, *[1.0] * backend.max_outputs]
            changes = {"temperature": temperature, "top_k": 2, "seed": 3, "ignore_eos": True, "cache_prompt": False}
            harness.submit("a", prompt, max_tokens=40, **changes)  # type: ignore[arg-type]
            runs.append(harness.run())
        plain, guessed = runs
        assert guessed.tokens("a") == plain.tokens("a")
        assert len(decode_steps(guessed)) < len(decode_steps(plain)) / 2
    backend.close()


@pytest.mark.real_model
@pytest.mark.parametrize("schema", [PERSON, pytest.param(PEOPLE, marks=pytest.mark.slow)])
def test_the_real_model_says_the_same_with_forced_text(real_config: EngineConfig, schema: dict[str, Any]) -> None:
    """Up to rounding: at the first difference both tokens are nearly the best of those that the grammar allows."""
    config = msgspec.structs.replace(real_config, context_size=1024, parallel=2, draft_max=7)
    backend = LlamaBackend(config, n_slots=4)
    grammar = from_json_schema(schema)
    prompts = [f"<bos>{name} is {age} years old. As JSON: " for name, age in (("Ann", 31), ("Bob", 9), ("Nobody", 70))]
    for text in prompts:
        prompt = backend.vocabulary.encode(text, special=True)
        runs: list[Harness] = []
        for draft_max in (0, 7):
            harness = Harness(backend, msgspec.structs.replace(config, draft_max=draft_max))
            harness.loop._batch_cost.ms = [0.0, *[1.0] * backend.max_outputs]
            harness.submit("a", prompt, max_tokens=90, grammar=grammar, cache_prompt=False)
            runs.append(harness.run())
        plain, forced = runs
        tokens = [harness.tokens("a") for harness in runs]
        matcher = GrammarCompiler(backend.vocabulary).matcher(grammar)
        assert_same_up_to_rounding(backend, prompt, tokens[1], tokens[0], matcher=matcher)
        assert len(decode_steps(forced)) < len(decode_steps(plain))
        assert forced.ended("a").reason == "stop"
    backend.close()


@pytest.mark.real_model
def test_cells_taken_back_leave_the_window_whole(real_config: EngineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draft token is wrong, beyond the point where the windowed cells are reused: all the window sees stays."""
    monkeypatch.setattr(PromptLookup, "draft", lambda _, tokens, at_most: [7, 8, 9][:at_most])
    monkeypatch.setattr(PromptLookup, "odds", 0.9)
    config = msgspec.structs.replace(
        real_config, context_size=4096, parallel=1, batch_size=64, draft_max=3, cache_ram_mb=0
    )
    backend = LlamaBackend(config, n_slots=1)
    harness = Harness(backend, config)
    harness.loop._batch_cost.ms = [0.0, *[1.0] * 4]
    prompt = [2, *(1000 + 13 * n % 9000 for n in range(1000))]
    harness.submit("a", prompt, max_tokens=60, ignore_eos=True, priority=1)
    harness.step_until_first_token("a")
    n_before = backend.first_position(0)
    while harness.loop.step():
        n_held = backend.n_positions(0)
        assert backend.first_position(0) <= max(0, n_held - backend.window + 1)
    steps = decode_steps(harness)
    assert sum(step.n_drafted for step in steps) > 100
    assert sum(step.n_accepted for step in steps) < 5
    assert n_before > 0, "windowed cells were reused"
    backend.close()
