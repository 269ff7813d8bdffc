"""The answer about a caller's limits and usage."""

from datetime import date

from msgspec import Struct


class LimitsAnswer(Struct, frozen=True, kw_only=True):
    """Limits of the caller; null: none."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    tokens_per_day: int | None
    answers_at_once: int | None
    conversations: int | None
    memories: int | None


class UsageNow(Struct, frozen=True, kw_only=True):
    """The present state of what is limited; ``requests_this_minute`` counts for callers with such a limit alone."""

    requests_this_minute: int
    tokens_this_minute: int
    tokens_today: int
    answers_under_way: int
    conversations: int
    memories: int


class UsageDay(Struct, frozen=True, kw_only=True):
    """Answers that ended on a day (UTC), with the summaries that they needed."""

    day: date
    answers: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CallerUsageAnswer(Struct, frozen=True, kw_only=True):
    """Limits, the present state, and the last days with any usage, the newest first."""

    limits: LimitsAnswer
    now: UsageNow
    days: list[UsageDay]
