"""Time expressions of a question, relative to a given day: "yesterday", "last week", "in October", "2026-03-01".

English; other languages are in ``times_of_languages``.
"""

import re
from collections.abc import Callable
from datetime import date

from chat.rag.numeric_dates import NUMERIC_DATE, numeric_date
from chat.rag.search import times_of_languages
from chat.rag.search.calendar_spans import (
    DateSpan,
    NamedTime,
    day_span,
    last_units,
    latest_day,
    latest_month,
    latest_weekday,
    month_span,
    units_ago,
    year_span,
)
from chat.rag.words import bare

MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
COUNTS = dict(zip("a one two three four five six seven eight nine ten".split(), [1, *range(1, 11)], strict=True))  # noqa: SIM905
MONTH, WEEKDAY = "|".join(MONTHS), "|".join(WEEKDAYS)
# Without those that are names and words, too.
ABBREVIATION = r"(?:sept|sep|feb|apr|aug|oct|nov|dec)\b\.?"
SHORT_MONTH = rf"{MONTH}|{ABBREVIATION}|(?:jan|mar|jun|jul)\b\.?"
OPENINGS = {"since": "since", "after": "since", "from": "since", "before": "before", "until": "until", "till": "until"}
# A look-behind, since ``OPENER`` reads these words from the text before the match.
OPENED = "|".join(f"(?<={word} )" for word in ("since", "before", "until", "after", "from"))
COUNT = rf"(?P<n>\d{{1,3}}|{'|'.join(COUNTS)}|couple of|few)"
# Words of time expressions, which name no subject.
WORDS = frozenset(
    """ago before until till after from since during between today tonight yesterday morning afternoon evening night day
    days week weeks month months year years last past previous latest newest recent recently lately current currently
    time times heard happen happened happening happens new news first st nd rd th""".split()  # noqa: SIM905
).union(MONTHS, WEEKDAYS, COUNTS)
OPENER = re.compile(r"\b(since|after|from|before|until|till)\s+(?:the\s+)?$", re.IGNORECASE)
LATEST = re.compile(
    r"\b(latest|newest|most recent(ly)?|recently|lately|current(ly)?|up to date|so far|by now"
    r"|last (time|meeting|call|conversation|recording|transcript|said|heard|mentioned|word))\b",
    re.IGNORECASE,
)
# "28.11.", as it is written in German; elsewhere such numbers are those of versions and chapters.
DAY_AND_MONTH = re.compile(
    r"(?:(?<=\bam )|(?<=\bab )|(?<=\bvom )|(?<=\bden )|(?<=\bdem )|(?<=\bzum ))"
    r"(?P<day>\d{1,2})\. ?(?P<month>\d{1,2})\.(?!\d)",
    re.IGNORECASE,
)

# Words of a match are looked up in their bare form: without regard to case "s" and "i" match "ſ" and "İ", too.
Reading = Callable[[re.Match[str], date], DateSpan]


def is_about_the_latest(text: str) -> bool:
    return bool(LATEST.search(text)) or times_of_languages.is_about_the_latest(text)


def span_in(text: str, today: date) -> DateSpan | None:
    """Return the days that the text names, None when it names none."""
    named = time_in(text, today)
    return named.span if named else None


def time_in(text: str, today: date) -> NamedTime | None:
    """Return the days that the text names, with its words for them; None when it names none."""
    for pattern, reading in READINGS:
        for match in pattern.finditer(text):
            try:
                span = reading(match, today)
            except (ValueError, OverflowError):  # 30 February, or a count beyond the calendar
                continue
            # "from ... to ..." already has both ends.
            if match.groupdict().get("until"):
                return NamedTime(span, match[0])
            before = text[: match.start()]
            if opener := OPENER.search(before):
                return NamedTime(span.opened(OPENINGS[bare(opener[1])]), f"{opener[0]}{match[0]}")
            # A date in digits stands in questions of every language.
            opening = times_of_languages.opening(bare(before), bare(text[match.end() :]))
            return NamedTime(span.opened(opening.end), f"{opening.before}{match[0]}{opening.after}")
    return times_of_languages.foreign_time(text, today)


def _iso(match: re.Match[str], today: date) -> DateSpan:
    first = date.fromisoformat(match["iso"])
    return DateSpan(first, date.fromisoformat(match["until"]) if match["until"] else first)


def _numeric(match: re.Match[str], today: date) -> DateSpan:
    day = numeric_date(match[0])
    if day is None:
        raise ValueError(match[0])
    return day_span(day)


def _named_day(match: re.Match[str], today: date) -> DateSpan:
    """ "3 March", "March 3rd, 2026"; without a year the most recent one."""
    month, day = _month_number(match["month"] or match["month2"]), int(match["day"] or match["day2"])
    return day_span(date(int(match["year"]), month, day)) if match["year"] else latest_day(today, month, day)


def _named_month(match: re.Match[str], today: date) -> DateSpan:
    month = _month_number(match["month"])
    return month_span(int(match["year"]), month) if match["year"] else latest_month(today, month)


def _month_number(name: str) -> int:
    return next(number for number, month in enumerate(MONTHS, start=1) if month.startswith(bare(name)[:3]))


def _count(word: str) -> int:
    return int(word) if word.isdigit() else COUNTS.get(bare(word), 2 if bare(word) == "couple of" else 3)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"\b{text}\b", re.IGNORECASE)


# In order of precision: the first match counts.
READINGS: list[tuple[re.Pattern[str], Reading]] = [
    (_pattern(r"(?P<iso>\d{4}-\d\d-\d\d)(?:\s*(?:to|and|until|till|through|-|–)\s*(?P<until>\d{4}-\d\d-\d\d))?"), _iso),
    (NUMERIC_DATE, _numeric),
    (DAY_AND_MONTH, lambda match, today: latest_day(today, int(match["month"]), int(match["day"]))),
    (
        _pattern(
            rf"(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month>{SHORT_MONTH})"
            rf"|(?P<month2>{SHORT_MONTH})\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?)(?:,?\s+(?P<year>\d{{4}}))?"
        ),
        _named_day,
    ),
    (_pattern(rf"(?P<month>{SHORT_MONTH})\s+(?P<year>\d{{4}})"), _named_month),
    (_pattern(r"day before yesterday"), lambda _, today: units_ago(today, 2, "day")),
    (_pattern(r"(?:yesterday|last night)"), lambda _, today: units_ago(today, 1, "day")),
    (_pattern(r"(?:today|tonight|this (?:morning|afternoon|evening))"), lambda _, today: day_span(today)),
    (
        _pattern(rf"{COUNT}\s+(?P<unit>day|week|month|year)s?\s+ago"),
        lambda match, today: units_ago(today, _count(match["n"]), bare(match["unit"])),
    ),
    (
        _pattern(rf"(?:last|past|previous)\s+{COUNT}\s+(?P<unit>day|week|month|year)s?"),
        lambda match, today: last_units(today, _count(match["n"]), bare(match["unit"])),
    ),
    (
        _pattern(r"(?P<which>this|last|past|previous)\s+(?P<unit>week|month|year)"),
        lambda match, today: units_ago(today, 0 if bare(match["which"]) == "this" else 1, bare(match["unit"])),
    ),
    (
        _pattern(rf"(?:(?:on|last|this)\s+|{OPENED})(?P<weekday>{WEEKDAY})"),
        lambda match, today: latest_weekday(today, WEEKDAYS.index(bare(match["weekday"]))),
    ),
    # A month alone may be a name or a verb ("May", "march"); a preposition of time makes it a month.
    (_pattern(rf"(?:(?:in|during|last|this)\s+|{OPENED})(?P<month>{MONTH}|{ABBREVIATION})(?P<year>)"), _named_month),
    (
        _pattern(rf"(?:(?:in|during)\s+|{OPENED})(?P<year>20\d\d)"),
        lambda match, _: year_span(int(match["year"])),
    ),
    # These are nothing else.
    (re.compile(r"\b(?P<month>January|February|September|Sept|October|November|December)\b(?P<year>)"), _named_month),
]
