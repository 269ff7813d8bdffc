"""Which sequences a step computes: slices, budgets, priorities, room, and the accounting. On the fake model."""

from collections.abc import Sequence as Many
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.engine.backends.backend import Logits, Slice
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.config import Device
from inference.engine.core.admission import OUTRANKED
from inference.engine.core.step_cost import FIRST_SLICE, FIXED_SLICE, MIN_SLICE, SIZES, StepCost
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.protocol.frames import Deferred, Step
from inference.engine.sequences.sequence import SequenceState
from tests.engine.harness import Harness, RecordingBackend, fake_config, turn

LONG = "x" * 600


def recorded(**changes: object) -> tuple[Harness, RecordingBackend]:
    config = fake_config(**changes)
    inner = FakeBackend(n_cells=config.context_size, n_slots=2 * config.parallel, batch_size=config.batch_size)
    backend = RecordingBackend(inner)
    return Harness(backend, config), backend


# ---- prompts beside answers ----


def read_beside_an_answer(**changes: object) -> list[Step]:
    """Steps from the arrival of a long prompt until its first token, an answer running all the time."""
    harness, _ = recorded(**changes)
    harness.ask("answer", "[[count: 40]]")
    harness.step_until_first_token("answer")
    harness.ask("reader", LONG)
    before = len(harness.steps())
    harness.step_until_first_token("reader")
    return harness.steps()[before:]


def test_a_running_answer_gets_a_token_between_any_two_slices_of_a_prompt() -> None:
    reading = read_beside_an_answer()
    assert len(reading) > 6
    assert all((one.n_prefill > 0) != (other.n_prefill > 0) for one, other in pairwise(reading))
    assert all([each.sequence_id for each in step.emissions] == ["answer"] for step in reading if step.n_decode)


def test_on_a_card_one_step_holds_both_prompts_and_answers() -> None:
    reading = read_beside_an_answer(device=Device.GPU)
    assert len(reading) > 3
    assert all(step.n_prefill and step.n_decode for step in reading)


def test_the_first_of_many_prompts_does_not_wait_for_the_last() -> None:
    harness = Harness.fake(parallel=8)
    names = [str(number) for number in range(8)]
    for name in names:
        harness.ask(name, "x" * 100 + "[[count: 9]]")
    first_steps: dict[str, int] = {}
    for number in range(1, 100):
        harness.loop.step()
        first_steps |= {name: number for name in names if harness.tokens(name) and name not in first_steps}
    assert list(first_steps) == names
    assert first_steps["0"] <= 3, "two or three slices of 64, not those of all eight"


def test_a_batch_never_exceeds_its_size() -> None:
    harness, backend = recorded(batch_size=40)
    for name in "abcd":
        harness.ask(name, LONG)
    harness.run()
    assert max(sum(len(each.tokens) for each in batch) for batch in backend.batches) <= 40


def test_a_slice_follows_the_budget_and_what_steps_really_cost() -> None:
    cost = StepCost(budget_ms=150)
    assert cost.n_prefill_tokens(0) == FIXED_SLICE
    assert cost.n_prefill_tokens(1) == FIRST_SLICE, "little, as long as nobody knows what it costs"
    cost.observe(0, 64, 64.0)
    assert cost.n_prefill_tokens(1) == 128, "150 ms at 1 ms a token; what lies between 128 and 256 is no better"
    cost.observe(2, 0, 70.0)
    assert cost.n_prefill_tokens(2) == 64, "the answers' own 70 ms come first"
    for _ in range(20):
        cost.observe(2, 32, 70.0 + 32 * 4)
    assert cost.n_prefill_tokens(2) == MIN_SLICE, "slow, but never nothing"
    cost.observe(4, 0, 500.0)
    assert cost.n_prefill_tokens(4) == MIN_SLICE


def test_a_slice_is_cut_by_what_its_own_size_costs() -> None:
    """One price per token led to slices of 64, the dearest of all: half a tile of the matrix kernels."""
    cost = StepCost(budget_ms=320)
    cost.observe(1, 0, 40.0)
    cost.observe(0, 64, 180.0)
    cost.observe(0, 256, 525.0)
    assert cost.n_prefill_tokens(1) == 128, "never seen, but worth a try: 262 ms, if it is as good as 256"
    cost.observe(1, 128, 40.0 + 268.0)
    assert cost.n_prefill_tokens(1) == 128
    cost.observe(1, 128, 40.0 + 400.0)
    assert cost.n_prefill_tokens(1) == 64, "it has become too dear"
    for _ in range(10):
        cost.observe(1, 64, 40.0 + 150.0)
    assert cost.n_prefill_tokens(1) == 128, "and cheap again, as the smaller ones tell"


def test_what_is_not_near_a_size_tells_nothing_of_it() -> None:
    cost = StepCost(budget_ms=150)
    for n_tokens in (1, 20, 45, 96, 90):
        cost.observe(0, n_tokens, 1e6)
    assert cost.n_prefill_tokens(1) == FIRST_SLICE
    cost.observe(0, 126, 126.0)
    assert cost.n_prefill_tokens(1) == 128


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5000), st.floats(0.0, 1e5)), max_size=30),
    st.integers(1, 16),
    st.floats(1.0, 1e4),
)
def test_whatever_was_measured_a_larger_slice_is_never_cheaper(
    seen: list[tuple[int, int, float]], n_decode: int, budget_ms: float
) -> None:
    cost = StepCost(budget_ms)
    for each in seen:
        cost.observe(*each)
    n_tokens = cost.n_prefill_tokens(n_decode)
    assert n_tokens in SIZES
    if cost._slice_ms:
        costs = [cost.slice_ms(size) for size in SIZES]
        assert costs == sorted(costs)
        assert n_tokens == MIN_SLICE or cost.slice_ms(n_tokens) <= budget_ms - cost.decode_ms(n_decode)


def test_the_cost_of_a_step_that_never_was_lies_between_those_that_were() -> None:
    cost = StepCost(budget_ms=150)
    assert cost.decode_ms(3) == 0.0, "nothing is known yet"
    cost.observe(2, 0, 30.0)
    cost.observe(4, 0, 50.0)
    assert [cost.decode_ms(n) for n in (0, 1, 2, 3, 4, 16)] == [0.0, 30.0, 30.0, 40.0, 50.0, 50.0]


@pytest.mark.parametrize("token_ms", [0.01, 1.0, 50.0])
def test_a_prompt_that_is_alone_is_cut_alike_however_fast_the_machine_is(token_ms: float) -> None:
    cost = StepCost(budget_ms=150)
    for _ in range(5):
        cost.observe(0, 64, 64 * token_ms)
    assert cost.n_prefill_tokens(0) == FIXED_SLICE


def test_a_prompt_step_faster_than_its_answers_does_not_divide_by_nothing() -> None:
    cost = StepCost(budget_ms=150)
    cost.observe(1, 0, 100.0)
    cost.observe(1, 64, 1e-9)
    assert cost.n_prefill_tokens(1) >= MIN_SLICE


def test_a_short_question_does_not_wait_for_a_long_one_to_be_read() -> None:
    harness = Harness.fake()
    harness.ask("long", LONG * 5)
    harness.loop.step()
    harness.ask("short", "hi")
    harness.step_until_first_token("short")
    done, total = harness.progress("long")[-1]
    assert done < total / 4
    assert len(harness.progress("long")) >= 2, "and the long one goes on meanwhile"


def test_the_long_prompt_goes_on_while_short_ones_come() -> None:
    harness = Harness.fake(parallel=4)
    harness.ask("long", LONG)
    for number in range(40):
        harness.ask(f"short {number}", "[[say: .]]" + "y" * 40)
    n_steps = 0
    while not harness.tokens("long"):
        harness.loop.step()
        n_steps += 1
    assert n_steps <= 2 * -(-len(LONG) // 32) + 2, "it gets half of every slice at least"


@pytest.mark.parametrize(
    ("max_tokens", "question", "is_first"),
    [(8, 3 * LONG, True), (200, 3 * LONG, False), (8, "hi", False)],
    ids=["short rest", "long rest", "short question"],
)
def test_an_answer_near_its_end_goes_first_where_no_prompt_waits_longer_for_it(
    max_tokens: int, question: str, *, is_first: bool
) -> None:
    harness = Harness.fake(batch_size=256, draft_max=0)
    with_costs(harness, decode_ms={1: 30.0}, slice_ms={64: 160.0, 256: 525.0})
    harness.ask("answer", "[[count: 300]]", max_tokens=max_tokens)
    harness.step_until_first_token("answer")
    n_steps = len(harness.steps())
    harness.ask("reader", question)
    harness.step_until_first_token("reader")
    slices = [step.n_prefill for step in harness.steps()[n_steps:]]
    if is_first:
        rest = max_tokens - 1
        assert slices[:rest] == [0] * rest
        assert slices[rest:-1] == [FIXED_SLICE] * (len(slices) - rest - 1), "and then the prompt, in large slices"
    else:
        assert max(slices[:2]) > 0
        assert all((one > 0) != (other > 0) for one, other in pairwise(slices)), "a token between any two slices"


def with_costs(harness: Harness, *, decode_ms: dict[int, float], slice_ms: dict[int, float]) -> None:
    """Steps are taken to cost this, whatever they do."""
    cost = harness.loop._cost
    for n_tokens, ms in slice_ms.items():
        cost.observe(0, n_tokens, ms)
    for n_answers, ms in decode_ms.items():
        cost.observe(n_answers, 0, ms)
    cost.observe = lambda *_: None  # type: ignore[method-assign]


def test_what_a_prompt_takes_beside_answers_counts_their_steps() -> None:
    cost = StepCost(budget_ms=320)
    assert cost.prefill_ms(900, 1) == 0.0, "nothing is known yet"
    cost.observe(1, 0, 30.0)
    cost.observe(0, 128, 290.0)
    cost.observe(0, 256, 512.0)
    cost.observe(0, 128, 290.0)  # after the drift
    small, large = cost.slice_ms(128), cost.slice_ms(256)
    assert cost.prefill_ms(1024, 0) == pytest.approx(4 * large)
    assert cost.n_prefill_tokens(1) == 128
    assert cost.prefill_ms(1024, 1) == pytest.approx(8 * small + 8 * 30.0)
    assert cost.prefill_ms(1000, 1) == pytest.approx(1000 / 128 * small + 8 * 30.0)


# ---- order ----


def test_interactive_work_overtakes_waiting_batch_work() -> None:
    harness = Harness.fake(parallel=1)
    harness.ask("running", "[[count: 3]]")
    harness.loop.step()
    harness.ask("batch", "one", priority=2)
    harness.ask("interactive", "two", priority=1)
    harness.run()
    order = [each.sequence_id for step in harness.steps() for each in step.emissions]
    assert order.index("interactive") < order.index("batch")


@pytest.mark.parametrize("cache_prompt", [True, False])
@pytest.mark.parametrize("is_reading", [True, False])
def test_batch_work_gives_its_place_and_goes_on_where_it_was(*, is_reading: bool, cache_prompt: bool) -> None:
    harness = Harness.fake(parallel=1)
    harness.ask("batch", "[[count: 30]]" + "x" * 200, priority=2, cache_prompt=cache_prompt)
    if is_reading:
        harness.loop.step()
        assert not harness.tokens("batch")
    else:
        harness.step_until_first_token("batch")
    harness.ask("person", "[[say: at once]]")
    n_before = len(harness.steps())
    harness.step_until_first_token("person")
    assert len(harness.steps()) - n_before <= 2, "the step that was due, and its own prompt"
    harness.run()
    assert harness.text("person") == "at once"
    assert harness.text("batch") == "".join(f"{number} " for number in range(1, 31))
    n_tokens = sum(step.n_tokens for step in harness.steps())
    n_prompts = sum(
        len(turn(harness.backend.vocabulary, text)) for text in ("[[count: 30]]" + "x" * 200, "[[say: at once]]")
    )
    assert n_tokens <= n_prompts + len(harness.tokens("batch")) + len(harness.tokens("person")) + 1, "nothing twice"
    reasons = [frame.reason for frame in harness.frames if isinstance(frame, Deferred)]
    assert reasons == [OUTRANKED]


def test_a_place_is_not_taken_from_equals_nor_in_vain() -> None:
    harness = Harness.fake(parallel=2, context_size=200)
    harness.ask("first", "[[count: 20]]" + "x" * 80)
    harness.step_until_first_token("first")
    harness.ask("batch", "[[say: ok]]", priority=2)
    harness.step_until_first_token("batch")
    harness.ask("too long for now", "y" * 90)
    harness.ask("another batch", "z", priority=2)
    harness.loop.step()
    assert [each.id for each in harness.loop.scheduler.sequences.running] == ["first", "batch"]
    harness.run()
    assert harness.text("batch") == "ok"


def test_equals_come_in_order_of_arrival() -> None:
    harness = Harness.fake(parallel=1)
    names = ["first", "second", "third"]
    for name in names:
        harness.ask(name, "x")
    harness.run()
    order = [each.sequence_id for step in harness.steps() for each in step.emissions]
    assert list(dict.fromkeys(order)) == names


# ---- room ----


def test_one_sequence_may_use_the_whole_pool_and_ends_with_length() -> None:
    harness = Harness.fake(context_size=100)
    harness.ask("a", "[[count: 9999]]", max_tokens=1000)
    harness.run()
    n_prompt = len(turn(harness.backend.vocabulary, "[[count: 9999]]"))
    assert harness.ended("a").reason == "length"
    assert n_prompt + len(harness.tokens("a")) == 100
    assert harness.loop.pool.n_free >= 0


def test_when_the_pool_is_full_the_lowest_gives_way_and_comes_back_unharmed() -> None:
    harness = Harness.fake(context_size=300, parallel=3)
    harness.ask("batch", "[[count: 45]]", priority=2)
    harness.ask("one", "[[count: 45]]")
    harness.ask("two", "[[count: 45]]")
    gave_way = False
    while harness.loop.step():
        gave_way |= any(each.id == "batch" for each in harness.loop.scheduler.sequences.waiting)
    expected = "".join(f"{number} " for number in range(1, 46))
    assert gave_way
    for name in ("batch", "one", "two"):
        assert harness.text(name) == expected
        assert [each.index for each in harness.emissions(name)] == list(range(1, len(expected) + 1))


def test_batch_work_gives_its_room_to_a_prompt_that_would_have_to_wait_for_its_end() -> None:
    harness = Harness.fake(context_size=160, parallel=2)
    harness.ask("batch", "[[count: 12]]" + "x" * 60, priority=2)
    harness.step_until_first_token("batch")
    harness.ask("interactive", "y" * 70)
    harness.run()
    order = [emission.sequence_id for step in harness.steps() for emission in step.emissions]
    assert order.index("interactive") < len(order) - 1 - order[::-1].index("batch")
    assert harness.text("batch") == "".join(f"{number} " for number in range(1, 13))


def test_nobody_gives_way_in_vain() -> None:
    harness = Harness.fake(context_size=200, parallel=3)
    harness.ask("first", "[[count: 20]]" + "x" * 80)
    harness.step_until_first_token("first")
    harness.ask("batch", "[[say: ok]]", priority=2)
    harness.step_until_first_token("batch")
    harness.ask("second", "y" * 90)
    harness.loop.step()
    assert [each.id for each in harness.loop.scheduler.sequences.running] == ["first", "batch"]
    harness.run()
    assert harness.text("batch") == "ok"


def test_a_prompt_waits_until_there_is_room_for_it() -> None:
    harness = Harness.fake(context_size=400)
    harness.ask("first", "[[count: 20]]" + "x" * 180)
    harness.loop.step()
    harness.ask("second", "[[say: done]]" + "y" * 180)
    harness.loop.step()
    assert harness.progress("second") == []
    harness.run()
    assert harness.text("second") == "done"


def test_cells_that_are_reused_are_not_counted_as_room_as_well() -> None:
    harness = Harness.fake(context_size=300)
    first = harness.backend.vocabulary.encode("[[say: .]]" + "x" * 90, special=False)
    harness.submit("first", first)
    harness.run()
    harness.ask("running", "[[count: 9]]" + "y" * 70)
    harness.step_until_first_token("running")
    free = harness.loop.pool.n_free
    follow_up = first + harness.tokens("first") + [90] * free
    harness.submit("too long for now", follow_up)
    harness.loop.step()
    assert harness.progress("too long for now") == []
    assert harness.loop.pool.n_cached > 0, "what it will reuse is not thrown away while it waits"
    harness.run()
    assert len(harness.ends("too long for now")) == 1


def test_idle_cells_make_room_before_anybody_gives_way() -> None:
    harness = Harness.fake(context_size=300)
    for name in "ab":
        harness.ask(name, "x" * 90)
        harness.run()
    assert harness.loop.pool.n_cached > 200
    harness.ask("c", "[[say: room]]" + "z" * 200)
    harness.run()
    assert harness.text("c") == "room"


def test_idle_slots_make_room() -> None:
    harness = Harness.fake(parallel=1, n_slots=2)
    for number in range(6):
        harness.ask(str(number), f"{number} question")
        harness.run()
    assert len(harness.loop.pool.cached) == 2
    assert harness.text("5") == "You said: 5 question"


class Fragmented(RecordingBackend):
    """A model that has no room now and then although the pool counts enough free cells."""

    refusals = 2

    def decode(self, slices: Many[Slice]) -> list[Logits] | None:
        if len(self.batches) in (3, 4) and self.refusals:
            self.refusals -= 1
            self.batches.append([])
            return None
        return super().decode(slices)


def test_a_model_without_the_room_that_the_pool_counts_costs_cache_and_no_answer() -> None:
    config = fake_config(parallel=2)
    backend = Fragmented(FakeBackend(n_cells=config.context_size, n_slots=4, batch_size=config.batch_size))
    harness = Harness(backend, config)
    for name in "ab":
        harness.ask(name, f"[[say: answer {name}]]")
    harness.run()
    assert backend.refusals == 0
    assert [harness.text(name) for name in "ab"] == ["answer a", "answer b"]


def test_no_room_for_a_single_sequence_is_a_bug_whose_error_has_the_numbers() -> None:
    config = fake_config()
    backend = RecordingBackend(FakeBackend(n_cells=10, n_slots=2, batch_size=64))
    backend.n_cells = 4096  # the pool counts cells that do not exist
    harness = Harness(backend, config)
    harness.ask("a", LONG)
    with pytest.raises(AccountingError, match="no room for a single sequence; 4096 cells"):
        harness.run()


# ---- accounting ----


def test_lost_cells_are_found_when_idle() -> None:
    harness = Harness.fake()
    harness.ask("a", "hello")
    harness.run()
    harness.loop.pool.n_free -= 1
    with pytest.raises(AccountingError, match="do not add up: 4096 cells"):
        harness.loop.step()


def test_cells_that_the_model_lost_are_found_when_idle() -> None:
    harness = Harness.fake()
    harness.ask("a", "hello")
    harness.run()
    harness.backend.remove(next(iter(harness.loop.pool.cached)))
    with pytest.raises(AccountingError, match="tokens, cells and positions"):
        harness.loop.step()


def test_the_pool_refuses_to_fill_what_it_does_not_have() -> None:
    pool = SlotPool(10, 1)
    slot = pool.take_slot()
    assert slot == 0
    assert pool.take_slot() is None
    with pytest.raises(AccountingError, match="filled 11 cells"):
        pool.fill(slot, 11)


def test_an_impossible_move_is_named() -> None:
    harness = Harness.fake()
    harness.ask("a", "hello")
    sequence = harness.loop.scheduler.sequences.find("a")
    assert sequence is not None
    with pytest.raises(RuntimeError, match="sequence a is waiting: expected a move to prefill, ended, got decode"):
        sequence.move(SequenceState.DECODE)


class Arrivals(RuleBasedStateMachine):
    """Any order of arrivals, steps, cancels and follow-ups, in a pool too small for them."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness.fake(context_size=260, parallel=3, n_slots=5, batch_size=48, window=40)
        # Small enough that states are pushed out all the time.
        self.harness.loop.scheduler.cache.snapshots._max_bytes = 4000
        self.n_submitted = 0
        self.answers: dict[str, str] = {}
        self.prompts: dict[str, list[int]] = {}

    def submit(self, prompt: list[int], answer: str, **changes: object) -> None:
        name = str(self.n_submitted)
        self.n_submitted += 1
        self.answers[name], self.prompts[name] = answer, prompt
        self.harness.submit(name, prompt, **changes)  # type: ignore[arg-type]

    @rule(
        count=st.integers(min_value=0, max_value=30),
        padding=st.integers(min_value=0, max_value=120),
        priority=st.integers(min_value=1, max_value=2),
        cache_prompt=st.booleans(),
    )
    def arrive(self, count: int, padding: int, priority: int, cache_prompt: bool) -> None:
        prompt = turn(self.harness.backend.vocabulary, f"{'p' * padding}[[count: {count}]]")
        answer = "".join(f"{number} " for number in range(1, count + 1))
        self.submit(prompt, answer, priority=priority, cache_prompt=cache_prompt)

    @precondition(lambda self: self.n_submitted > 0)
    @rule(data=st.data(), cut=st.integers(min_value=0, max_value=30))
    def follow_up(self, data: st.DataObject, cut: int) -> None:
        """A prompt that begins with, or within, one that was there before and its answer."""
        former = data.draw(st.sampled_from(sorted(self.prompts)))
        history = self.prompts[former] + self.harness.tokens(former)
        history = history[: len(history) - cut] or history
        self.submit(history + turn(self.harness.backend.vocabulary, "[[say: next]]"), "next")

    @precondition(lambda self: self.n_submitted > 0)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.harness.cancel(data.draw(st.sampled_from(sorted(self.prompts))))

    @rule(n_steps=st.integers(min_value=1, max_value=25))
    def step(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.harness.loop.step()

    @invariant()
    def the_books_balance(self) -> None:
        pool, scheduler = self.harness.loop.pool, self.harness.loop.scheduler
        pool.check()
        assert pool.n_free >= 0
        assert isinstance(self.harness.backend, FakeBackend)
        assert self.harness.backend.n_used_cells == pool.n_cells - pool.n_free, "shared cells count once"
        snapshots = scheduler.cache.snapshots
        assert snapshots.n_bytes == sum(each.n_bytes for each in snapshots._in_ram.values()) <= 4000
        n_indexed = len(scheduler.cache._live) + len(scheduler.cache.idle) + len(snapshots)
        assert len(scheduler.cache._tree) == n_indexed
        assert len(scheduler.sequences.running) <= 3
        for slot, n_cells in (pool.used | pool.cached).items():
            assert self.harness.backend.n_positions(slot) == n_cells
        assert {each.slot for each in scheduler.sequences.running} == set(pool.used)

    def teardown(self) -> None:
        self.harness.run()
        for name, answer in self.answers.items():
            assert len(self.harness.ends(name)) == 1, "everything that came ends, once"
            text = "".join(each.text for each in self.harness.emissions(name))
            assert answer.startswith(text), "whatever was reused, cut or computed again, the answer is right"
        indexes = [each.index for name in self.answers for each in self.harness.emissions(name)]
        assert all(index > 0 for index in indexes)
        assert all(isinstance(step, Step) for step in self.harness.steps())


Arrivals.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestArrivals = Arrivals.TestCase
