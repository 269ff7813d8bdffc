"""References of a question to the messages it means: by their speaker, their place at the start, or their age.

English, German and Spanish; a question in another language is searched by its words and its meaning alone.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from chat.models import Role
from chat.rag.search.query_understanding import HINT_WORDS
from chat.rag.search.terms import subject_words
from chat.rag.words import words

BY_USER = re.compile(
    r"\b(?:(?:did|have|had|was) i|i (?:said|told|mentioned|asked|wrote)"
    r"|my (?:\w+ )?(?:message|question|words)"
    r"|(?:habe?|hatte|sagte|wollte|bat|fragte) ich|ich (?:\w+ )?(?:gesagt|erwähnt|erzählt|gefragt|genannt)"
    r"|meine? (?:\w+ )?(?:frage|nachricht)|dije|mencioné|conté|pregunté|he (?:dicho|mencionado|contado|preguntado)"
    r"|mi (?:\w+ )?(?:pregunta|mensaje))\b",
    re.IGNORECASE,
)
BY_ASSISTANT = re.compile(
    r"\b(?:(?:did|have|had) you|you (?:said|told|suggested|recommended|proposed|explained|answered|wrote)"
    r"|your (?:\w+ )?(?:answer|suggestion|advice|proposal|recommendation|list)"
    r"|(?:hast|hattest) du|du (?:\w+ )?(?:gesagt|vorgeschlagen|empfohlen|erklärt|geantwortet)"
    r"|deine?[rn]? (?:\w+ )?(?:antwort|vorschlag|rat|empfehlung)|dijiste|sugeriste|recomendaste|propusiste|explicaste"
    r"|respondiste|has (?:dicho|sugerido|recomendado|propuesto)|tu (?:\w+ )?(?:respuesta|sugerencia|consejo))\b",
    re.IGNORECASE,
)
FIRST = re.compile(
    r"\b(?:first|at the (?:beginning|start)|zuerst|als erstes|erste[ns]?|am anfang|zu beginn"
    r"|primer[oa]?|al (?:principio|inicio))\b",
    re.IGNORECASE,
)
LAST = re.compile(
    r"\b(?:last|latest|previous|most recent|just (?:say|said|ask|asked|tell|told)|letzte[nrs]?|zuletzt|vorige[nrs]?"
    r"|gerade|eben|[úu]ltim[oa]|anterior|acabo)\b",
    re.IGNORECASE,
)
ABOUT_TIMES = re.compile(
    r"\b(?:when|what (?:time|day|date)|how long ago|yesterday|today|this morning|wann|um wie viel uhr|gestern|heute"
    r"|cuándo|cuando|a qué hora|ayer|hoy)\b",
    re.IGNORECASE,
)
UNIT_SECS = {"min": 60, "hour": 3600, "stund": 3600, "hora": 3600, "day": 86_400, "tag": 86_400, "día": 86_400}
COUNTS = {"half": 0.5, "halbe": 0.5, "halben": 0.5, "media": 0.5, "medio": 0.5} | {
    word: float(count)
    for count, row in enumerate(
        (
            "a an one ein eine einem einer un una",
            "two zwei dos",
            "three drei tres",
            "four vier cuatro",
            "five fünf cinco",
        ),
        start=1,
    )
    for word in row.split()
}
_COUNT = rf"(?P<count>\d{{1,3}}|{'|'.join(COUNTS)})(?: an?)?"
_UNIT = r"(?P<unit>min|hour|stund|hora|day|tag|día)\w*"
AGO = [
    re.compile(rf"\b{_COUNT} {_UNIT} ago\b"),
    re.compile(rf"\b(?:vor|hace) (?:etwa |ungefähr |unos |unas )?{_COUNT} {_UNIT}"),
]
# Words about the conversation itself, which name no subject.
ABOUT_MESSAGES = frozenset(
    words(
        "first last latest previous recent just now beginning start ask asked question message words said tell told"
        " mention talk speak spoke discuss ago half hour hours minute minutes day days habe haben wir worüber war mein"
        " meine meinen zuerst erstes erste ersten letzte letzten zuletzt vorige gerade eben anfang beginn frage"
        " gefragt nachricht gesagt gesprochen geredet vor stunde stunden minute minuten tag tagen primero primera"
        " principio inicio última último anterior acabo pregunta pregunté mensaje dije hablamos hablado hace hora"
        " horas minutos días"
    )
)


@dataclass(frozen=True, kw_only=True)
class References:
    """Hints of a question; ``span``: the time it names. ``names_times``: it is about that of messages.
    ``has_no_subject``: it consists of such hints alone, of which ``is_last`` is one."""

    role: Role | None = None
    is_first: bool = False
    is_last: bool = False
    span: tuple[datetime, datetime] | None = None
    has_no_subject: bool = False
    names_times: bool = False


def references_in(question: str, now: datetime) -> References:
    span = _span_in(question, now)
    role = None
    if BY_ASSISTANT.search(question):
        role = Role.ASSISTANT
    elif BY_USER.search(question):
        role = Role.USER
    is_first = bool(role or span) and FIRST.search(question) is not None
    no_subject = HINT_WORDS | ABOUT_MESSAGES
    subject = [word for word in subject_words(question) if word not in no_subject and not word.isdigit()]
    has_no_subject = bool(role or span) and not subject
    is_last = has_no_subject and not span and LAST.search(question) is not None
    return References(
        role=role,
        is_first=is_first,
        is_last=is_last,
        span=span,
        has_no_subject=has_no_subject,
        names_times=span is not None or ABOUT_TIMES.search(question) is not None,
    )


def _span_in(question: str, now: datetime) -> tuple[datetime, datetime] | None:
    # Lower case before the match: without regard to case "s" matches "ſ", too, whose word is in no table.
    match = next(filter(None, (pattern.search(question.lower()) for pattern in AGO)), None)
    if match is None:
        return None
    count = match["count"]
    secs = UNIT_SECS[match["unit"]] * COUNTS.get(count, float(count) if count.isdigit() else 1.0)
    # "An hour ago" is said of half an hour and of an hour and a half.
    return now - timedelta(seconds=1.5 * secs), now - timedelta(seconds=0.5 * secs)
