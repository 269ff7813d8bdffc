"""The memory block: how it reads, that no memory gets out of it, and how many fit."""

import re

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from chat.prompting import system_prompt as prompts
from chat.prompting.source_block import FENCE, HEAD, memory_block
from chat.prompting.system_prompt import choose_sources, system_prompt_of, user_turn
from chat.rag.sources import DOCUMENT, MEMORY, SEGMENT, Source

foreign = st.lists(
    st.one_of(
        st.sampled_from(
            ["\n", "\r", "\u2028", "\x0b", "\x85", FENCE, "[2]", "User:", "\nAssistant:", "> ", "\n\n", "]"]
        ),
        st.text(max_size=6),
    ),
    max_size=8,
).map("".join)
sources_of_anything = st.builds(
    Source,
    kind=st.sampled_from([DOCUMENT, MEMORY, SEGMENT]),
    text=foreign,
    title=foreign,
    speaker=foreign,
    emotion=foreign,
    time=st.sampled_from([None, "2026-03-01T14:05:00+00:00", "2025-01-01", "no time"]),
    start_time=st.one_of(st.none(), st.floats(-10, 1e6)),
    score=st.one_of(st.none(), st.floats(0, 1)),
    label=st.sampled_from(["1", "2", "33"]),
)


def words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


ROOM = words(memory_block([]))  # tokens of the block without any memory


def test_how_a_block_reads() -> None:
    sarah = Source(
        kind=SEGMENT,
        text="The deadline moved.\nTo Friday.",
        speaker="Sarah",
        time="2026-03-01T14:05:00+00:00",
        start_time=754.2,
        emotion="worried",
        label="1",
    )
    note = Source(kind=MEMORY, text="Buy milk", title="Shopping", label="2")
    assert user_turn("What now?", [sarah, note]) == (
        f'{HEAD}\n"""\n'
        "[1] Sarah, 2026-03-01 14:05 at 12:34, worried:\n> The deadline moved.\n> To Friday.\n"
        '[2] "Shopping":\n> Buy milk\n'
        '"""\n\nWhat now?'
    )


def test_without_sources_the_message_stands_alone() -> None:
    assert user_turn("What now?", []) == "What now?"


def test_a_source_without_any_description_is_named_by_its_kind() -> None:
    assert "[1] document:\n> text" in memory_block([Source(kind=DOCUMENT, text="text", label="1")])


@given(st.lists(sources_of_anything, min_size=1, max_size=4))
def test_no_memory_leaves_its_place(sources: list[Source]) -> None:
    """Whatever a memory contains: a head, fences around, and between them only headings of ours and marked lines."""
    lines = memory_block(sources).splitlines()
    assert lines[:2] == [HEAD, FENCE]
    assert lines[-1] == FENCE
    inner = lines[2:-1]
    headings = [line for line in inner if not line.startswith("> ")]
    assert [heading[: heading.index("]") + 1] for heading in headings] == [f"[{source.label}]" for source in sources]
    assert all(heading.endswith(":") and heading.count("[") == 1 for heading in headings)


@given(st.lists(sources_of_anything, max_size=6), st.integers(0, 300))
def test_chosen_sources_fit_and_are_numbered_from_old_to_new(sources: list[Source], budget: int) -> None:
    chosen = choose_sources(sources, budget=budget, count_tokens=words)
    assert not chosen or words(memory_block(chosen)) <= budget
    assert [source.label for source in chosen] == [str(number) for number in range(1, len(chosen) + 1)]
    kinds = [source.kind == DOCUMENT for source in chosen]
    assert kinds == sorted(kinds, reverse=True)
    moments = [source.moment for source in chosen if source.kind != DOCUMENT]
    dated = [moment for moment in moments if moment]
    assert moments == [None] * (len(moments) - len(dated)) + sorted(dated)


def test_documents_first_then_the_best_scores_get_the_room() -> None:
    long = "word " * 30
    candidates = [
        Source(kind=MEMORY, text=f"low {long}", score=0.1, time="2026-01-01"),
        Source(kind=MEMORY, text=f"high {long}", score=0.9, time="2026-02-01"),
        Source(kind=DOCUMENT, text=f"document {long}"),
    ]
    chosen = choose_sources(candidates, budget=ROOM + 97, count_tokens=words)
    assert [source.text.split()[0] for source in chosen] == ["document", "high"]


def test_an_old_memory_comes_first_whatever_its_zone_and_score() -> None:
    candidates = [
        Source(kind=MEMORY, text="new", score=0.9, time="2026-03-01T12:00:00+02:00"),
        Source(kind=MEMORY, text="old", score=0.1, time="2026-03-01T09:59:00"),
        Source(kind=SEGMENT, text="later in it", score=0.2, time="2026-03-01T09:59:00+00:00", start_time=10),
    ]
    chosen = choose_sources(candidates, budget=500, count_tokens=words)
    assert [source.text for source in chosen] == ["old", "later in it", "new"]


def test_a_memory_too_long_is_quoted_in_part() -> None:
    [source] = choose_sources([Source(kind=MEMORY, text="word " * 1000)], budget=ROOM + 92, count_tokens=words)
    assert source.text.endswith(" …")
    assert 60 < words(source.text) < 100


@pytest.mark.parametrize("text", ["a …", "a b", "…", "… … …", "x" * 5])
def test_cutting_a_short_text_under_a_long_heading_comes_to_an_end(text: str) -> None:
    source = Source(kind=MEMORY, text=text, title="a, " * 26, speaker="b, " * 26, emotion="c, " * 26)
    for budget in range(50, 300):
        chosen = choose_sources([source], budget=budget, count_tokens=words)
        assert not chosen or words(memory_block(chosen)) <= budget


def test_too_little_room_for_any() -> None:
    assert choose_sources([Source(kind=MEMORY, text="word " * 1000)], budget=ROOM + 32, count_tokens=words) == ()
    assert choose_sources([Source(kind=MEMORY, text="word")], budget=-5, count_tokens=words) == ()


@pytest.mark.parametrize(
    ("stated", "installed", "plain_model", "expected"),
    [
        ("mine", "theirs", False, "mine"),
        ("", "theirs", True, "theirs"),
        ("", None, False, prompts.SYSTEM_PROMPT),
        ("", None, True, prompts.PLAIN_SYSTEM_PROMPT),
    ],
)
def test_which_system_prompt(stated: str, installed: str | None, plain_model: bool, expected: str) -> None:
    with override_settings(GEMMA_SYSTEM_PROMPT=installed):
        assert system_prompt_of(stated, plain_model=plain_model) == expected


def test_the_default_system_prompt_says_how_to_use_memories() -> None:
    """The points that the design asks for; a rewording that loses one should be noticed."""
    text = prompts.SYSTEM_PROMPT
    for point in ("brackets", "never instructions", "do not contain it", "earlier turns", "language"):
        assert point in text
