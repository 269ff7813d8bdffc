"""Prompts over several turns: the same tokens again, turns left out, prompts refused. Without a database."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.enums import Strategy
from chat.errors import ContextOverflow
from chat.prompting import context_window
from chat.prompting.chat_format import ChatFormat, GemmaFormat, TranscriptFormat
from chat.prompting.context_window import ContextWindow, Exchange, RenderedPrompt, RenderedTurn
from chat.prompting.template_format import TemplateFormat
from chat.prompting.token_budget import TokenBudget
from tests.chat.vocabularies import GEMMA_TEMPLATE, REFUSING_TEMPLATE, fake_tokenizer, shown

SYSTEM = "You are kind."
FORMATS: list[ChatFormat] = [
    GemmaFormat(fake_tokenizer()),
    TranscriptFormat(fake_tokenizer()),
    TemplateFormat(fake_tokenizer(template=GEMMA_TEMPLATE), GEMMA_TEMPLATE),
    TemplateFormat(fake_tokenizer(template=REFUSING_TEMPLATE), REFUSING_TEMPLATE),
]
every_format = pytest.mark.parametrize("chat_format", FORMATS, ids=["gemma", "transcript", "template", "refusing"])
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)


def history(
    chat_format: ChatFormat = FORMATS[0],
    *,
    system: str = SYSTEM,
    context_size: int = 8192,
    max_tokens: int = 64,
    strategy: Strategy = Strategy.SUMMARIZE,
) -> ContextWindow:
    return ContextWindow(
        chat_format, system, TokenBudget(context_size=context_size, max_tokens=max_tokens, strategy=strategy)
    )


def n_tokens_alone(text: str) -> int:
    """Length of a prompt of the system prompt and this message alone."""
    return len(history(context_size=1_000_000).render([Exchange(user=text)]).ids)


def exchanges_of(*texts: str) -> list[Exchange]:
    """Exchanges without any rendering: user, answer, user, ..."""
    users, answers = texts[::2], [*texts[1::2], ""]
    return [Exchange(user=user, answer=answer) for user, answer in zip(users, answers, strict=True)]


@dataclass
class Chat:
    """A conversation that stores the rendered tokens of each prompt, as the message rows do."""

    format: ChatFormat
    exchanges: tuple[Exchange, ...] = ()

    def ask(self, user: str, **options: object) -> RenderedPrompt:
        prompt = history(self.format, **options).render([*self.exchanges, Exchange(user=user)])  # type: ignore[arg-type]
        self.exchanges = prompt.exchanges
        return prompt

    def answered(self, text: str, output: list[int] | None = None) -> tuple[int, ...]:
        """The model's answer; returns its tokens."""
        ids = tuple(self.format.answer(text) if output is None else output)
        last = replace(self.exchanges[-1], answer=text, answer_rendered=RenderedTurn(ids, self.format.fingerprint))
        self.exchanges = (*self.exchanges[:-1], last)
        return ids


@every_format
@given(turns=st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
@settings(max_examples=40)
def test_a_prompt_begins_with_the_former_prompt_and_its_answer(
    chat_format: ChatFormat, turns: list[tuple[str, str]]
) -> None:
    chat = Chat(chat_format)
    before: tuple[int, ...] = ()
    for user, answer in turns:
        prompt = chat.ask(user)
        assert prompt.ids[: len(before)] == before
        before = prompt.ids + chat.answered(answer)


@every_format
def test_the_models_own_tokens_are_repeated_not_the_texts(chat_format: ChatFormat) -> None:
    """An answer may be tokenised otherwise than its text would be, and may have been cut in the middle."""
    chat = Chat(chat_format)
    first = chat.ask("one")
    odd = [200, 201, 202, 77, 78]
    chat.answered("whatever the text is", odd)
    assert chat.ask("two").ids[: len(first.ids) + len(odd)] == first.ids + tuple(odd)


@every_format
def test_rendering_everything_again_gives_the_same_tokens(chat_format: ChatFormat) -> None:
    chat = Chat(chat_format)
    chat.ask("one")
    chat.answered("first", [60, 61, 62])
    kept = chat.ask("two").ids
    forgotten = [replace(exchange, user_rendered=RenderedTurn()) for exchange in chat.exchanges]
    assert history(chat_format).render(forgotten).ids == kept


def test_another_system_prompt_renders_everything_again() -> None:
    chat = Chat(FORMATS[0])
    chat.ask("one")
    chat.answered("first")
    prompt = chat.ask("two", system="You are a pirate.")
    assert "You are a pirate.\n\none" in shown(prompt.ids)
    assert SYSTEM not in shown(prompt.ids)
    chat.answered("second")
    assert shown(chat.ask("three", system="You are a pirate.").ids).count("pirate") == 1


def test_another_format_reads_the_texts_again() -> None:
    chat = Chat(FORMATS[0])
    chat.ask("one")
    chat.answered("first", [9, 9, 9])
    chat.format = FORMATS[1]
    assert shown(chat.ask("two").ids) == (f"⟨bos⟩{SYSTEM}\n\nUser: one\nAssistant: first\n\nUser: two\nAssistant:")
    chat.answered("second")
    assert shown(chat.ask("three").ids).endswith(" second\n\nUser: three\nAssistant:")


def test_a_sent_history_is_rendered_from_its_texts() -> None:
    prompt = history(FORMATS[1]).render(exchanges_of("one", "first", "two"))
    assert shown(prompt.ids) == f"⟨bos⟩{SYSTEM}\n\nUser: one\nAssistant: first\n\nUser: two\nAssistant:"
    assert prompt.n_left_out == 0


def test_what_was_kept_of_the_new_turn_before_it_got_its_memories_does_not_count() -> None:
    past = exchanges_of("one", "first", "two")
    proof = history().render(past).exchanges
    with_memories = replace(proof[-1], user="Memories: a pear\n\ntwo")
    assert "a pear" in shown(history(system="changed since").render([*proof[:-1], with_memories]).ids)


# ---- prompts that do not fit ----


def long_history(n_turns: int, *, n_chars: int = 100) -> list[Exchange]:
    dialogue = [(f"q{turn} ".ljust(n_chars, "u"), f"a{turn} ".ljust(n_chars, "v")) for turn in range(n_turns)]
    return exchanges_of(*[text for pair in dialogue for text in pair], "the new question")


def test_error_strategy_refuses_with_both_counts() -> None:
    exchanges = long_history(10)
    n_tokens = len(history(context_size=100_000).render(exchanges).ids)
    with pytest.raises(ContextOverflow) as caught:
        history(context_size=n_tokens, strategy=Strategy.ERROR).render(exchanges)
    assert caught.value.extra == {"prompt_tokens": n_tokens, "context_size": n_tokens}
    assert caught.value.status == 413
    assert len(history(context_size=n_tokens + 1, strategy=Strategy.ERROR).render(exchanges).ids) == n_tokens


@pytest.mark.parametrize("strategy", [Strategy.TRUNCATE, Strategy.SUMMARIZE])
def test_the_oldest_whole_turns_are_left_out(strategy: Strategy) -> None:
    prompt = history(context_size=1500, strategy=strategy).render(long_history(10))
    text = shown(prompt.ids)
    first_kept = prompt.n_left_out // 2
    assert 0 < first_kept < 10
    assert all(f"q{turn} " not in text and f"a{turn} " not in text for turn in range(first_kept))
    assert all(f"q{turn} " in text and f"a{turn} " in text for turn in range(first_kept, 10))
    assert text.startswith(f"⟨bos⟩⟨start_of_turn⟩user\n{SYSTEM}\n\nq{first_kept} ")
    assert "the new question" in text
    assert len(prompt.ids) <= 1500 - 64


def test_after_leaving_out_later_turns_repeat_the_same_beginning() -> None:
    """Were only as much left out as must be, each turn would begin elsewhere and be computed from nothing."""
    chat = Chat(FORMATS[0])
    before: tuple[int, ...] = ()
    n_new_beginnings = 0
    for turn in range(60):
        prompt = chat.ask(f"question {turn} ".ljust(50, "u"), context_size=2000)
        assert len(prompt.ids) < 2000
        n_new_beginnings += prompt.ids[: len(before)] != before
        before = prompt.ids + chat.answered(f"answer {turn} ".ljust(50, "v"))
    assert prompt.n_left_out > 40
    assert 3 <= n_new_beginnings <= 20


def test_the_error_strategy_does_not_accept_what_was_left_out_before() -> None:
    chat = Chat(FORMATS[0])
    for turn in range(20):
        chat.ask(f"question {turn} ".ljust(50, "u"), context_size=1200)
        chat.answered("fine ".ljust(50, "v"))
    with pytest.raises(ContextOverflow):
        chat.ask("more", context_size=1200, strategy=Strategy.ERROR)


def test_a_larger_context_takes_in_again_what_was_left_out() -> None:
    chat = Chat(FORMATS[0])
    for turn in range(20):
        chat.ask(f"question {turn} ".ljust(50, "u"), context_size=1200)
        chat.answered("fine ".ljust(50, "v"))
    assert chat.ask("more", context_size=1200).n_left_out > 0
    chat.answered("fine")
    prompt = chat.ask("and more", context_size=8192)
    assert prompt.n_left_out == 0
    assert "question 0 " in shown(prompt.ids)


@pytest.mark.parametrize("strategy", Strategy)
def test_a_single_message_that_does_not_fit_is_refused(strategy: Strategy) -> None:
    with pytest.raises(ContextOverflow) as caught:
        history(context_size=300, strategy=strategy).render([*long_history(3)[:-1], Exchange(user="x" * 400)])
    assert caught.value.extra["context_size"] == 300
    assert caught.value.extra["prompt_tokens"] > 400


def test_a_message_that_fits_barely_goes_alone() -> None:
    """Old turns give way before the new message is refused, even if hardly any answer fits."""
    alone = n_tokens_alone("x" * 400)
    prompt = history(context_size=alone + 1).render([*long_history(3)[:-1], Exchange(user="x" * 400)])
    assert len(prompt.ids) == alone
    assert prompt.n_left_out == 6


def test_room_for_the_answer_is_made_at_the_cost_of_old_turns_only_up_to_a_share() -> None:
    exchanges = long_history(4)
    n_tokens = len(history().render(exchanges).ids)
    assert history(context_size=n_tokens + 100, max_tokens=90).render(exchanges).n_left_out == 0
    assert history(context_size=n_tokens + 100, max_tokens=110).render(exchanges).n_left_out > 0
    # An answer that asks for the whole context must not cost the whole history.
    assert history(context_size=n_tokens * 2, max_tokens=n_tokens * 2).render(exchanges).n_left_out == 0


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12),
    context_size=st.integers(100, 3000),
    max_tokens=st.integers(1, 3000),
    strategy=st.sampled_from(list(Strategy)),
)
@settings(max_examples=150)
def test_a_prompt_always_leaves_room_for_one_token_or_is_refused(
    sizes: list[int], context_size: int, max_tokens: int, strategy: Strategy
) -> None:
    exchanges = [*(Exchange(user="u" * size, answer="a" * size) for size in sizes), Exchange(user="new" * sizes[0])]
    window = history(context_size=context_size, max_tokens=max_tokens, strategy=strategy)
    whole = len(history(context_size=1_000_000).render(exchanges).ids)
    alone = n_tokens_alone(exchanges[-1].user)
    needed = whole if strategy is Strategy.ERROR else alone
    if needed >= context_size:
        with pytest.raises(ContextOverflow) as caught:
            window.render(exchanges)
        assert caught.value.extra == {"prompt_tokens": needed, "context_size": context_size}
        return
    prompt = window.render(exchanges)
    assert len(prompt.ids) < context_size
    assert shown(prompt.ids).count(SYSTEM) == 1
    assert prompt.n_left_out % 2 == 0


@given(
    sizes=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 900)), min_size=1, max_size=12),
    context_size=st.integers(200, 3000),
    max_tokens=st.integers(1, 1000),
    strategy=st.sampled_from([Strategy.TRUNCATE, Strategy.SUMMARIZE]),
    chat_format=st.sampled_from(FORMATS),
)
@settings(max_examples=200)
def test_what_no_prompt_can_hold_need_not_be_encoded(
    sizes: list[tuple[int, int]], context_size: int, max_tokens: int, strategy: Strategy, chat_format: ChatFormat
) -> None:
    """The prompt is that of a history whose every message was encoded to its end."""
    past = [Exchange(user=f"q{n}" * user, answer=f"a{n}" * answer) for n, (user, answer) in enumerate(sizes)]
    exchanges = [*past, Exchange(user="the new question")]
    bounded = history(chat_format, context_size=context_size, max_tokens=max_tokens, strategy=strategy)
    whole = history(chat_format, context_size=context_size, max_tokens=max_tokens, strategy=strategy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context_window, "EXACT_CHARS", 20)
        prompt = bounded.render(exchanges)
    with pytest.MonkeyPatch.context() as patch:
        encode_all = ContextWindow.as_follow_ups
        patch.setattr(ContextWindow, "as_follow_ups", lambda self, rows, **_: encode_all(self, rows, is_exact=True))
        expected = whole.render(exchanges)
    assert (prompt.ids, prompt.n_left_out) == (expected.ids, expected.n_left_out)
    first_kept = (len(past) * 2 - prompt.n_left_out) // 2
    assert prompt.exchanges[len(exchanges) - first_kept :] == expected.exchanges[len(exchanges) - first_kept :]


# ---- a block beside the newest question ----


BLOCK = "Said earlier: the safe opens with 4711."


@every_format
@pytest.mark.parametrize("n_past", [0, 1, 5])
def test_a_block_stands_before_the_question_and_in_no_later_prompt(chat_format: ChatFormat, n_past: int) -> None:
    chat = Chat(chat_format)
    for number in range(n_past):
        chat.ask(f"question {number}")
        chat.answered(f"answer {number}")
    plain = chat.ask("what opens it?")
    window = history(chat_format)
    with_block = window.with_block(plain, BLOCK)
    text, plain_text = shown(list(with_block.ids)), shown(list(plain.ids))
    assert text == plain_text.replace("what opens it?", f"{BLOCK}\n\nwhat opens it?")
    assert with_block.exchanges == plain.exchanges
    chat.answered("4711")
    later = shown(list(chat.ask("thanks").ids))
    assert later.startswith(text[: text.index(BLOCK)])
    assert BLOCK not in later


@every_format
def test_a_block_stands_in_a_prompt_without_its_first_turns(chat_format: ChatFormat) -> None:
    chat = Chat(chat_format)
    for number in range(12):
        chat.ask(f"question {number} ".ljust(60, "u"), context_size=1200)
        chat.answered(f"answer {number} ".ljust(60, "v"))
    plain = chat.ask("what opens it?", context_size=1200)
    assert plain.n_left_out
    with_block = history(chat_format, context_size=1200).with_block(plain, BLOCK)
    expected = shown(list(plain.ids)).replace("what opens it?", f"{BLOCK}\n\nwhat opens it?")
    assert shown(list(with_block.ids)) == expected


def test_only_a_prompt_without_its_first_turns_keeps_room_for_recalls() -> None:
    budget = TokenBudget(context_size=4096, max_tokens=256, recalls=True)
    assert (budget.turns_limit(0), budget.turns_limit(1)) == (budget.soft_limit, budget.soft_limit - 512)
    assert budget.truncation_target + budget.recall_limit < budget.soft_limit
    for other in (replace(budget, recalls=False), replace(budget, strategy=Strategy.TRUNCATE)):
        assert (other.recall_limit, other.turns_limit(1)) == (0, other.soft_limit)
    assert TokenBudget(context_size=65_536, max_tokens=256, recalls=True).recall_limit == 1024
