"""Time expressions of a question in other languages than English: "letzte Woche", "el 3 de marzo", "11月28日".

The text is compared in its bare form, without case and accents. The language of the question need not be names.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

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
from chat.rag.search.stop_words import FRENCH, GERMAN
from chat.rag.search.time_vocabulary import COUNTS, alternatives, bounded, vocabulary
from chat.rag.words import IS_UNSPACED, bare, words

COUNT_IN_TABLES, COUNT = r"(\d++[.,]?\d*+)", r"\d{1,3}"
COUNT_WORD = re.compile(bounded(alternatives(COUNTS)))
ARTICLES = r"(?:\s*(?:el|la|le|les|il|lo|dem|den|der|die|du|des|de|del|l'|d'|o|a|um|zum|au|wann|de la))*\s*$"
# Words before a time that open one end of it, and words after it.
OPENERS = {
    "since": "seit ab nach desde después-de después depuis après dès dal dopo da à-partir-de sinds na od po с со после "
    "منذ بعد מאז אחרי 自 从 自从 sedan efter siden etter από",
    "before": "vor antes-de antes avant prima voor przed перед قبل לפני före før πριν",
    "until": "bis hasta jusqu'à jusqu'au jusqu'en fino tot do до حتى עד até",
}
OPENERS_AFTER = {
    "since": "以降|以来|以後|之后|之後|以后|から|이후|부터|起",
    "before": "以前|より前|の前|之前|이전|전에",
    "until": "まで|为止|까지",
}
NEXT = re.compile(r"(?:nachste[nrms]?|kommende[nrms]?|proxim[oa]|prochaine?|下个?|下周|(?<!以)来|来週|다음)\s*$")
LAST_WEEK = "上个?星期|上个?礼拜|上[周週]|先週の?|지난 ?주 ?"
UNITS = {
    **dict.fromkeys(("tag", "tage", "tagen", "dia", "dias", "jour", "jours", "天", "日"), "day"),
    **dict.fromkeys(("woche", "wochen", "semana", "semanas", "semaine", "semaines", "周", "週間", "个星期"), "week"),
    **dict.fromkeys(("monat", "monate", "monaten", "mes", "meses", "mois", "个月", "か月", "ヶ月"), "month"),
    **dict.fromkeys(("jahr", "jahre", "jahren", "ano", "anos", "an", "ans", "annees", "年"), "year"),
}
LAST_OF_SEVERAL = r"letzten|letzte|vergangenen|ultim[oa]s|过去|最近|近|過去|直近"
SIGNS_OF_WEEKDAYS = "一二三四五六日"
YEAR_IN_SIGNS = r"(?:(?P<year>\d{4}|今|去|昨)[年년]\s*)?"
BEFORE_A_MONTH = "|".join(
    [
        "im|in|en|em|au mois de|mes de|nel|ad|w|we|v|ve|letzten|vergangenen|seit|bis|vor|desde|hasta|depuis|avant",
        "antes de|jusqu'en|dal|sinds",
        *map(bare, ("в", "во", "у", "في", "شهر", "منذ", "قبل", "حتى")),
    ]
)
LATEST = re.compile(
    bounded(
        "|".join(
            [
                "zuletzt|neue?ste[nrs]?|kurzlich|neulich|aktuelle?[nrs]?",
                "letzte[nsrm]? (?:mal|besprechung|gesprach|anruf|treffen|aufnahme)",
                "ultima (?:vez|reunion|llamada|conversacion|grabacion)|lo ultimo|mas reciente|recientemente",
                "derniere (?:fois|reunion|conversation)|dernier (?:appel|entretien)|recemment|dernierement",
                "le plus recent|ultimamente|ultima volta|recentemente|최근|지난번|最新|最近|この前|前回|直近|上次|近来",
                *map(bare, ("أحدث", "آخر (?:مرة|اجتماع|مكالمة)", "مؤخرا", "недавно", "последний раз")),
            ]
        )
    )
)

Reading = Callable[["re.Match[str]", date], DateSpan]


def foreign_time(text: str, today: date) -> NamedTime | None:
    """Return the days that the text names in one of the languages, None when it names none."""
    plain = bare(text)
    # Of "三天前" and "vor zwei Wochen" the number; of "周一" it is the name of a day.
    in_digits = COUNT_WORD.sub(lambda match: str(COUNTS[match[0]]), plain)
    if named := _first(_readings(), plain, today):
        return named
    counted = _first(_counting_readings(), in_digits, today)
    return replace(counted, text=" ".join((counted.text, *COUNT_WORD.findall(plain)))) if counted else None


def _first(readings: list[tuple[re.Pattern[str], Reading]], plain: str, today: date) -> NamedTime | None:
    for pattern, reading in readings:
        for match in pattern.finditer(plain):
            if NEXT.search(plain[: match.start()]) or (match[0] == "hier" and not _is_french(plain)):
                continue
            try:
                span = reading(match, today)
            except (ValueError, OverflowError):  # 30 February, or a count beyond the calendar
                continue
            opened = opening(plain[: match.start()], plain[match.end() :])
            return NamedTime(span.opened(opened.end), f"{opened.before}{match[0]}{opened.after}")
    return None


def is_about_the_latest(text: str) -> bool:
    return LATEST.search(bare(text)) is not None


def _is_french(plain: str) -> bool:
    """Tell whether "hier" is yesterday; in German and Dutch it is here."""
    present = set(words(plain))
    n_french, n_german = (len(present.intersection(words(language))) for language in (FRENCH, GERMAN))
    return n_french > n_german


@dataclass(frozen=True)
class Opening:
    """``end`` is since, before, until or empty; the words for it are before or after the time."""

    end: str = ""
    before: str = ""
    after: str = ""


def opening(before: str, after: str) -> Opening:
    """Return which end of a time between two bare texts is open."""
    for end, pattern in _openers():
        if match := pattern.search(before):
            return Opening(end, before=match[0])
    for end, forms in OPENERS_AFTER.items():
        if match := re.match(forms, after):
            return Opening(end, after=match[0])
    return Opening()


@functools.cache
def _openers() -> list[tuple[str, re.Pattern[str]]]:
    bare_forms = {end: [bare(form.replace("-", " ")) for form in forms.split()] for end, forms in OPENERS.items()}
    return [(end, re.compile(rf"(?<!\w)(?:{alternatives(forms)}){ARTICLES}")) for end, forms in bare_forms.items()]


def _year(text: str, today: date) -> int:
    return today.year if text == "今" else today.year - 1 if text in ("去", "昨") else int(text)


def day_of_month(match: re.Match[str], today: date) -> DateSpan:
    month, day = vocabulary().months[match["month"]], int(match["day"])
    return day_span(date(int(match["year"]), month, day)) if match["year"] else latest_day(today, month, day)


def day_in_signs(match: re.Match[str], today: date) -> DateSpan:
    month, day = int(match["month"]), int(match["day"])
    if match["year"]:
        return day_span(date(_year(match["year"], today), month, day))
    return latest_day(today, month, day)


def month_in_signs(match: re.Match[str], today: date) -> DateSpan:
    month = int(match["month"])
    return month_span(_year(match["year"], today), month) if match["year"] else latest_month(today, month)


def of_last_week(match: re.Match[str], today: date) -> DateSpan:
    number = SIGNS_OF_WEEKDAYS.find(match["weekday"].replace("天", "日"))
    if number < 0:
        number = vocabulary().weekdays[match["weekday"]]
    return day_span(today - timedelta(days=today.weekday() + 7 - number))


def named_month(match: re.Match[str], today: date) -> DateSpan:
    month = vocabulary().months[match["month"]]
    return month_span(int(match["year"]), month) if match["year"] else latest_month(today, month)


def ago_reading(match: re.Match[str], today: date, *, unit: str) -> DateSpan:
    return units_ago(today, int(re.findall(COUNT, match[0])[0]), unit)


def last_reading(match: re.Match[str], today: date) -> DateSpan:
    return last_units(today, int(match["n"]), UNITS[match["unit"]])


def relative_reading(match: re.Match[str], today: date) -> DateSpan:
    return units_ago(today, *vocabulary().relative[match["relative"]])


def weekday_reading(match: re.Match[str], today: date) -> DateSpan:
    return latest_weekday(today, vocabulary().weekdays[match["weekday"]])


def year_alone(match: re.Match[str], today: date) -> DateSpan:
    return year_span(int(match["year"]))


@functools.cache
def _readings() -> list[tuple[re.Pattern[str], Reading]]:
    """Compile the patterns in order of precision: the first match counts."""
    names = vocabulary()
    month = alternatives(names.months)
    months_in_signs = alternatives(name for name in names.months if IS_UNSPACED.match(name))
    in_signs = alternatives(name for name in names.weekdays if IS_UNSPACED.match(name))
    readings: list[tuple[str, Reading]] = [
        (
            bounded(
                rf"(?P<day>\d{{1,2}})(?:\.|er|º|ª|°|-?го)?\s{{0,3}}(?:de |of |d')?\s{{0,3}}(?P<month>{month})"
                r"(?:\s{0,3},?\s{0,3}(?:de |del |του )?(?P<year>\d{4}))?"
            ),
            day_of_month,
        ),
        (rf"{YEAR_IN_SIGNS}(?P<month>\d{{1,2}})[月월]\s*(?P<day>\d{{1,2}})[日號号일]", day_in_signs),
        (bounded(rf"(?P<month>{month})\s*(?:de |del )?(?P<year>\d{{4}})"), named_month),
        (rf"{YEAR_IN_SIGNS}(?<!\d)(?P<month>1[0-2]|0?[1-9])[月월](?![内前])", month_in_signs),
        (rf"(?P<month>{months_in_signs})(?P<year>)", named_month),
        (rf"(?:{LAST_WEEK})(?P<weekday>{in_signs}|[{SIGNS_OF_WEEKDAYS}天])", of_last_week),
    ]
    readings += [
        (bounded(rf"(?P<relative>{alternatives(names.relative)})"), relative_reading),
        (bounded(rf"(?P<weekday>{alternatives(names.weekdays)})"), weekday_reading),
        # A month alone may be a name; a preposition of time makes it a month.
        (bounded(rf"(?:{BEFORE_A_MONTH})\s+(?P<month>{month})(?P<year>)"), named_month),
        (bounded(rf"(?P<month>{month}) (?:pasado|dernier|scorso|passado)(?P<year>)"), named_month),
        (bounded(r"(?:im jahr|jahr|en|em|nel|в|l'annee|ano|عام|سنة)\s+(?P<year>20\d\d)"), year_alone),
        (r"(?P<year>20\d\d)\s*[年년]", year_alone),
    ]
    return [(re.compile(pattern), reading) for pattern, reading in readings]


@functools.cache
def _counting_readings() -> list[tuple[re.Pattern[str], Reading]]:
    """Compile the patterns for texts with numbers in digits."""
    unit = alternatives(UNITS)
    forms: dict[str, list[str]] = {}
    for pattern, of in vocabulary().ago:
        forms.setdefault(of, []).append(pattern.replace(COUNT_IN_TABLES, COUNT))
    return [
        (re.compile(bounded(rf"(?:{LAST_OF_SEVERAL})\s*(?P<n>{COUNT})\s*(?P<unit>{unit})")), last_reading),
        (re.compile(bounded(rf"(?P<n>{COUNT}) derniere?s (?P<unit>{unit})")), last_reading),
        *(
            (
                re.compile(bounded("|".join(sorted(patterns, key=len, reverse=True)))),
                functools.partial(ago_reading, unit=of),
            )
            for of, patterns in forms.items()
        ),
    ]
