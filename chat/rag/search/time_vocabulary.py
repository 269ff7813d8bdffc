"""Names of days and months, and relative expressions such as "letzte Woche", in 22 languages.

The tables are those of the package ``dateparser`` (BSD-3-Clause), which come from Unicode's CLDR. The package itself is
not imported: its parser costs 25 MB and reads words such as "may" and "do" as dates.
"""

import functools
import importlib.util
import re
import runpy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat.rag.words import IS_UNSPACED, UNSPACED, bare

LANGUAGES = "ar cs da de el es fi fr he hi it ja ko nb nl pl pt ru sv tr uk zh".split()  # noqa: SIM905
MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
UNITS = ("day", "week", "month", "year")
# Forms that the tables lack, with hyphens for spaces.
MORE = {
    "0 day ago": "今晚 今夜 heute-morgen heute-abend esta-tarde esta-noche ce-matin ce-soir",
    "1 day ago": "昨晚 昨夜 gestern-abend ayer-por-la-tarde anoche 어젯밤 البارحة",
    "2 day ago": "おととい 그저께 przedwczoraj avantieri",
    "0 week ago": "dieser-woche 这周 这个星期 這週 这星期 이번주",
    "1 week ago": """
        letzten-woche letzter-woche vorige-woche voriger-woche vorigen-woche vergangene-woche vergangenen-woche
        vergangener-woche semana-pasada semaine-dernière semaine-passée 上星期 上礼拜 上个星期 上週 上个礼拜 지난-주
        الأسبوع-الفائت прошлую-неделю прошлой-неделе settimana-passata
    """,
    "0 month ago": "diesem-monat ce-mois 这个月 이번달",
    "1 month ago": """
        letztem-monat letzter-monat vorigen-monat vergangenen-monat mes-pasado mois-dernier mois-passé 上月 지난-달
        прошлом-месяце
    """,
    "0 year ago": "diesem-jahr",
    "1 year ago": """
        letztem-jahr letzten-jahr vorigen-jahr voriges-jahr vergangenen-jahr vergangenes-jahr año-pasado année-dernière
        an-dernier 지난해 прошлом-году
    """,
}
# Words of other meanings, beside or instead of the time.
OTHER_MEANINGS = {
    *("segunda", "terca", "quarta", "quinta", "sexta", "pazar", "pazartesi", "mais", "marca", "sali", "cuma")
}
MIN_LETTERS, MIN_SIGNS = 4, 2
SHORT = {"hoy", "dun"}
PREFIXES = "\u0648\u0641\u0628\u0644\u0643\u05d5\u05d1\u05d4\u05dc\u05de\u05e9"
COUNTS = {
    word: number
    for number, words in enumerate(
        (
            "ein eine einem einer einen un una uno une um uma 一 한",
            "zwei dos deux due dois duas twee 二 两 兩 두",
            "drei tres trois tre três drie 三 세",
            "vier cuatro quatre quattro quatro 四 네",
            "fünf cinco cinq cinque vijf 五 다섯",
            "sechs seis six sei zes 六",
            "sieben siete sept sette sete 七",
            "acht ocho huit otto oito 八",
            "neun nueve neuf nove negen 九",
            "zehn diez dix dieci dez tien 十",
        ),
        start=1,
    )
    for word in bare(words).split()
}


@dataclass(frozen=True)
class TimeVocabulary:
    """Expressions in their bare form (see ``words.bare``); ``ago`` has a pattern with the count as its only group."""

    months: dict[str, int]
    weekdays: dict[str, int]
    relative: dict[str, tuple[int, str]]
    ago: tuple[tuple[str, str], ...]


@functools.cache
def vocabulary() -> TimeVocabulary:
    """Read the tables; takes about 40 ms."""
    months: dict[str, int] = {}
    weekdays: dict[str, int] = {}
    relative: dict[str, tuple[int, str]] = {}
    ago: dict[str, str] = {}
    for language in LANGUAGES:
        table = _table(language)
        for number, name in enumerate(MONTHS, start=1):
            months |= dict.fromkeys(_long_enough(table.get(name, ())), number)
        for number, name in enumerate(WEEKDAYS):
            names = _long_enough(table.get(name, ()))
            # Hebrew counts the days: "second" alone is no Monday.
            weekdays |= {name: number for name in names if language != "he" or " " in name}
        for key, forms in (*table.get("relative-type", {}).items(), *_more(language)):
            if (expression := re.fullmatch(r"(\d) (\w+) ago", key)) and expression[2] in UNITS:
                relative |= dict.fromkeys(_long_enough(forms), (int(expression[1]), expression[2]))
        for key, patterns in table.get("relative-type-regex", {}).items():
            if (expression := re.fullmatch(r"\\1 (\w+) ago", key)) and expression[1] in UNITS:
                ago |= dict.fromkeys(_long_enough(patterns), expression[1])
    return TimeVocabulary(months, weekdays, relative, tuple(ago.items()))


def bounded(pattern: str) -> str:
    """Return the pattern between word boundaries where its script has words, after prefixes of Arabic and Hebrew.

    A name in Latin letters may touch a word of a script without spaces: "昨天Kai".
    """
    begin = rf"(?:(?=[{UNSPACED}])|(?<![^\W{UNSPACED}]))"
    end = rf"(?:(?<=[{UNSPACED}])|(?![^\W{UNSPACED}]))"
    return rf"{begin}[{PREFIXES}]{{0,2}}(?:{pattern}){end}"


def alternatives(forms: Iterable[str]) -> str:
    """Return a pattern of the forms, the longest first."""
    return "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))


def _more(language: str) -> Iterator[tuple[str, list[str]]]:
    if language == LANGUAGES[0]:
        for key, forms in MORE.items():
            yield key, [form.replace("-", " ") for form in forms.split()]


def _long_enough(forms: Iterable[str]) -> list[str]:
    """Return the bare forms without abbreviations, which are words of other meanings in some language."""
    candidates = [bare(form).strip() for form in forms]
    return [form for form in candidates if _is_whole(form) and form not in OTHER_MEANINGS]


def _is_whole(form: str) -> bool:
    letters = [character for character in re.sub(r"\([^()]*+\)", "", form) if character.isalpha()]
    if "(" in form:
        return len(letters) > MIN_LETTERS or any(map(IS_UNSPACED.match, letters))
    if letters and all(map(IS_UNSPACED.match, letters)):
        return len(letters) >= MIN_SIGNS
    # Arabic and Hebrew write no short vowels.
    return len(letters) >= MIN_LETTERS - (letters[:1] >= ["\u0590"]) or form in SHORT


def _table(language: str) -> dict[str, Any]:
    spec = importlib.util.find_spec("dateparser")
    folders = (spec.submodule_search_locations if spec else None) or ["missing"]
    path = Path(folders[0]) / "data" / "date_translation_data" / f"{language}.py"
    table: dict[str, Any] = runpy.run_path(str(path))["info"]
    return table
