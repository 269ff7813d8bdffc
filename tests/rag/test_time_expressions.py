"""Words of time, relative to Wednesday, 11 March 2026."""

from datetime import date

import pytest

from chat.rag.search.time_expressions import DateSpan, is_about_the_latest, span_in

TODAY = date(2026, 3, 11)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("what happened today", "2026-03-11", "2026-03-11"),
        ("this morning", "2026-03-11", "2026-03-11"),
        ("Yesterday's call", "2026-03-10", "2026-03-10"),
        ("the day before yesterday", "2026-03-09", "2026-03-09"),
        ("on Monday", "2026-03-09", "2026-03-09"),
        ("on Wednesday", "2026-03-04", "2026-03-04"),
        ("last Friday", "2026-03-06", "2026-03-06"),
        ("since Monday", "2026-03-09", None),
        ("before Monday", None, "2026-03-08"),
        ("this week", "2026-03-09", "2026-03-15"),
        ("last week", "2026-03-02", "2026-03-08"),
        ("last month", "2026-02-01", "2026-02-28"),
        ("this year", "2026-01-01", "2026-12-31"),
        ("last year", "2025-01-01", "2025-12-31"),
        ("in the last 3 days", "2026-03-08", "2026-03-11"),
        ("the past two weeks", "2026-02-25", "2026-03-11"),
        ("two days ago", "2026-03-09", "2026-03-09"),
        ("a week ago", "2026-03-02", "2026-03-08"),
        ("3 months ago", "2025-12-01", "2025-12-31"),
        ("in October", "2025-10-01", "2025-10-31"),
        ("in March", "2026-03-01", "2026-03-31"),
        ("since january", "2026-01-01", None),
        ("until February", None, "2026-02-28"),
        ("October 2024", "2024-10-01", "2024-10-31"),
        ("in 2024", "2024-01-01", "2024-12-31"),
        ("on 3 March", "2026-03-03", "2026-03-03"),
        ("on March 12th", "2025-03-12", "2025-03-12"),
        ("the 3rd of March, 2024", "2024-03-03", "2024-03-03"),
        ("on 2026-03-01", "2026-03-01", "2026-03-01"),
        ("from 2026-03-01 to 2026-03-05", "2026-03-01", "2026-03-05"),
        ("after 2026-03-01", "2026-03-01", None),
        ("before 2026-03-01", None, "2026-02-28"),
    ],
)
def test_a_time_that_is_named(text: str, start: str | None, end: str | None) -> None:
    expected = DateSpan(start and date.fromisoformat(start), end and date.fromisoformat(end))  # type: ignore[arg-type]
    assert span_in(f"What was said {text}?", TODAY) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It may be so",
        "They march on",
        "Mondays are hard",
        "room 2024",
        "",
        "2026-02-30",
        "sunny",
        "the 3 of us",
        "August is my cousin",
    ],
)
def test_no_time_is_named(text: str) -> None:
    assert span_in(text, TODAY) is None


@pytest.mark.parametrize("text", ["the latest on the budget", "What did she say last time?", "most recently", "LATELY"])
def test_the_latest_is_asked_for(text: str) -> None:
    assert is_about_the_latest(text)


@pytest.mark.parametrize("text", ["who came late", "at last", "last week", "the lasting effect"])
def test_the_latest_is_not_asked_for(text: str) -> None:
    assert not is_about_the_latest(text)
