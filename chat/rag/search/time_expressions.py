"""Time expressions of a question, relative to a given day: "yesterday", "last week", "in October", "2026-03-01".

English only. Spans are whole days, both ends included.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
COUNTS = dict(zip("a one two three four five six seven eight nine ten".split(), [1, *range(1, 11)], strict=True))  # noqa: SIM905
MONTH, WEEKDAY = "|".join(MONTHS), "|".join(WEEKDAYS)
# A look-behind, since ``DateSpan.opened_after`` reads these words from the text before the match.
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


@dataclass(frozen=True)
class DateSpan:
    """Days from ``start`` to ``end``; None is an open end."""

    start: date | None
    end: date | None

    def opened_after(self, text: str) -> "DateSpan":
        """Return the span with one end open when ``text`` ends with a word such as "since" or "before"."""
        word = OPENER.search(text)
        match word and word[1].lower():
            case "since" | "after" | "from":
                return DateSpan(self.start, None)
            case "before" if self.start and self.start > date.min:
                return DateSpan(None, self.start - timedelta(days=1))
            case "until" | "till":
                return DateSpan(None, self.end)
        return self


Reading = Callable[[re.Match[str], date], DateSpan]


def is_about_the_latest(text: str) -> bool:
    return bool(LATEST.search(text))


def span_in(text: str, today: date) -> DateSpan | None:
    """Return the days that the text names, None when it names none."""
    for pattern, reading in READINGS:
        for match in pattern.finditer(text):
            try:
                span = reading(match, today)
            except (ValueError, OverflowError):  # 30 February, or a count beyond the calendar
                continue
            # "from ... to ..." already has both ends.
            return span if match.groupdict().get("until") else span.opened_after(text[: match.start()])
    return None


def _day(day: date) -> DateSpan:
    return DateSpan(day, day)


def _month(year: int, month: int) -> DateSpan:
    following = date(year + month // 12, month % 12 + 1, 1)
    return DateSpan(date(year, month, 1), following - timedelta(days=1))


def _months_before(today: date, n_months: int) -> DateSpan:
    number = today.year * 12 + today.month - 1 - n_months
    return _month(number // 12, number % 12 + 1)


def _iso(match: re.Match[str], today: date) -> DateSpan:
    first = date.fromisoformat(match["iso"])
    return DateSpan(first, date.fromisoformat(match["until"]) if match["until"] else first)


def _named_day(match: re.Match[str], today: date) -> DateSpan:
    """ "3 March", "March 3rd, 2026"; without a year the most recent one."""
    month = MONTHS.index((match["month"] or match["month2"]).lower()) + 1
    day = int(match["day"] or match["day2"])
    if match["year"]:
        return _day(date(int(match["year"]), month, day))
    this_year = date(today.year, month, day)
    return _day(this_year if this_year <= today else date(today.year - 1, month, day))


def _named_month(match: re.Match[str], today: date) -> DateSpan:
    month = MONTHS.index(match["month"].lower()) + 1
    if match["year"]:
        return _month(int(match["year"]), month)
    return _month(today.year if month <= today.month else today.year - 1, month)


def _weekday(match: re.Match[str], today: date) -> DateSpan:
    """Return the most recent such weekday before today."""
    back = (today.weekday() - WEEKDAYS.index(match["weekday"].lower())) % 7 or 7
    return _day(today - timedelta(days=back))


def _count(word: str) -> int:
    return int(word) if word.isdigit() else COUNTS.get(word.lower(), 2 if word.lower() == "couple of" else 3)


def _ago(match: re.Match[str], today: date) -> DateSpan:
    n, unit = _count(match["n"]), match["unit"].lower()
    if unit == "month":
        return _months_before(today, n)
    if unit == "week":
        monday = today - timedelta(days=today.weekday() + 7 * n)
        return DateSpan(monday, monday + timedelta(days=6))
    return _day(today - timedelta(days=n)) if unit == "day" else DateSpan(*_year(today.year - n))


def _past(match: re.Match[str], today: date) -> DateSpan:
    days = _count(match["n"]) * {"day": 1, "week": 7, "month": 30, "year": 365}[match["unit"].lower()]
    return DateSpan(today - timedelta(days=days), today)


def _unit(match: re.Match[str], today: date) -> DateSpan:
    """ "this week", "last month"; a week begins on Monday."""
    back = 0 if match["which"].lower() == "this" else 1
    match match["unit"].lower():
        case "week":
            monday = today - timedelta(days=today.weekday() + 7 * back)
            return DateSpan(monday, monday + timedelta(days=6))
        case "month":
            return _months_before(today, back)
    return DateSpan(*_year(today.year - back))


def _year(year: int) -> tuple[date, date]:
    return date(year, 1, 1), date(year, 12, 31)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"\b{text}\b", re.IGNORECASE)


# In order of precision: the first match counts.
READINGS: list[tuple[re.Pattern[str], Reading]] = [
    (_pattern(r"(?P<iso>\d{4}-\d\d-\d\d)(?:\s*(?:to|and|until|till|through|-|–)\s*(?P<until>\d{4}-\d\d-\d\d))?"), _iso),
    (
        _pattern(
            rf"(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month>{MONTH})"
            rf"|(?P<month2>{MONTH})\s+(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?)(?:,?\s+(?P<year>\d{{4}}))?"
        ),
        _named_day,
    ),
    (_pattern(rf"(?P<month>{MONTH})\s+(?P<year>\d{{4}})"), _named_month),
    (_pattern(r"day before yesterday"), lambda _, today: _day(today - timedelta(days=2))),
    (_pattern(r"(?:yesterday|last night)"), lambda _, today: _day(today - timedelta(days=1))),
    (_pattern(r"(?:today|tonight|this (?:morning|afternoon|evening))"), lambda _, today: _day(today)),
    (_pattern(rf"{COUNT}\s+(?P<unit>day|week|month|year)s?\s+ago"), _ago),
    (_pattern(rf"(?:last|past|previous)\s+{COUNT}\s+(?P<unit>day|week|month|year)s?"), _past),
    (_pattern(r"(?P<which>this|last|past|previous)\s+(?P<unit>week|month|year)"), _unit),
    (_pattern(rf"(?:(?:on|last|this)\s+|{OPENED})(?P<weekday>{WEEKDAY})"), _weekday),
    # A month alone may be a name or a verb ("May", "march"); a preposition of time makes it a month.
    (_pattern(rf"(?:(?:in|during|last|this)\s+|{OPENED})(?P<month>{MONTH})(?P<year>)"), _named_month),
    (
        _pattern(rf"(?:(?:in|during)\s+|{OPENED})(?P<year>20\d\d)"),
        lambda match, _: DateSpan(*_year(int(match["year"]))),
    ),
]
