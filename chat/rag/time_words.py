"""Does a text name a time, and does a question ask for one? In the languages that questions are most often asked in.

An answer to "when" has a date, a day or an hour in it, whatever its other words are; one about a deadline has a time to
come, which "yesterday" and "today" are not.
"""

import re

# A text that names a time is indexed under the first word, one that names a time to come under both; a question for a
# time searches one of them.
TIME_FORM, DUE_FORM = "\u02d0when", "\u02d0due"
WEEKDAYS_AND_MONTHS = """
monday tuesday wednesday thursday friday saturday sunday january february march april june july august
september october november december montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag
januar februar märz mai juni juli oktober dezember lunes martes miércoles jueves viernes sábado domingo
enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre lundi mardi
mercredi jeudi vendredi samedi dimanche janvier février avril juin juillet août septembre octobre
novembre décembre الاثنين الثلاثاء الأربعاء الخميس الجمعة السبت الأحد يناير فبراير مارس أبريل مايو يونيو
يوليو أغسطس سبتمبر أكتوبر نوفمبر ديسمبر
"""
RELATIVE = """yesterday today tonight tomorrow weekend week month year morning evening gestern heute morgen übermorgen
wochenende woche monat jahr ayer hoy mañana semana mes año
hier aujourd'hui demain semaine mois année soir matin أمس اليوم
غداً غدا
الأسبوع الشهر السنة صباحاً مساءً"""
NUMERIC = r"\d{1,2}(?::\d\d|st|nd|rd|th)|\d{1,2} ?(?:am|pm|h|uhr)|\d{4}-\d\d-\d\d|(?:19|20)\d\d|den \d{1,2}\."
UNSPACED = (
    "[昨今明后後]天|[昨今明]日|[\\d一二三四五六七八九十][日号月点時年]"
    "|星期|礼拜|周[一二三四五六日末]|曜日|来週|先週|[上下]周"
)
_WORDS = (WEEKDAYS_AND_MONTHS + " " + RELATIVE).split()
# One look at the first character spares nearly every word of a text the attempt at 140 alternatives.
_FIRST = rf"(?=[{''.join(sorted({word[0] for word in _WORDS}))}d\d])"
NAMES_A_TIME = re.compile(rf"\b{_FIRST}(?:{'|'.join(_WORDS)}|{NUMERIC})\b|{UNSPACED}", re.IGNORECASE)
# Times that are over or nearly so, and words that make the next or the former one so.
_PAST_DAYS = "yesterday|today|tonight|gestern|vorgestern|heute|ayer|anteayer|hoy|hier|aujourd'hui|أمس|اليوم"
_BEFORE_PAST = r"last|previous|this morning|letzte[nrms]?|vorige[nrms]?|vergangene[nrms]?|heute morgen"
_AFTER_PAST = r"ago|pasad[oa]s?|passée?s?|derniers?|dernières?|الماضي"
PAST = re.compile(
    rf"\b(?:(?:{_BEFORE_PAST})(?:\s{{1,3}}\w{{1,20}})?|(?:\w{{1,20}}\s{{1,3}})?(?:{_AFTER_PAST})|{_PAST_DAYS})\b"
    r"|[昨今前]天|[昨今]日|先週|先月|上周|上个?月",
    re.IGNORECASE,
)
ASKS_FOR_A_DEADLINE = re.compile(
    r"\b(?:deadlines?|due|until when|by when|frist|fristen|abgabetermin|stichtag|bis wann"
    r"|fechas? límite|plazo|para cuándo|dates? limite|délai|échéance|pour quand)\b"
    r"|締め?切|期限|いつまで|截止|الموعد النهائي",
    re.IGNORECASE,
)
ASKS_FOR_A_TIME = re.compile(
    r"\b(?:when|what (?:time|day|date|year)|which (?:day|date|year)|how long ago|deadlines?|due|until when|by when"
    r"|wann|frist|termin|abgabetermin|datum|stichtag|welchem tag|bis wann|um wie ?viel uhr"
    r"|cuándo|fecha|plazo|qué día|qué hora|quand|date|délai|échéance|quel jour|quelle heure)\b"
    r"|いつ|締め?切|期限|何時|何日|何月|什么时候|何时|几点|哪天|日期|截止|期限|متى|موعد|الموعد|تاريخ",
    re.IGNORECASE,
)


def names_a_time(text: str) -> bool:
    return NAMES_A_TIME.search(text) is not None


def time_forms(text: str) -> list[str]:
    """Return the words under which a text is indexed for the times that it names."""
    if not names_a_time(text):
        return []
    return [TIME_FORM, DUE_FORM] if names_a_time(PAST.sub(" ", text)) else [TIME_FORM]


def form_of_time_in_question(question: str) -> str | None:
    """Return the word of the index that lines have which may answer the question; None: it asks for no time."""
    if ASKS_FOR_A_DEADLINE.search(question) is not None:
        return DUE_FORM
    return TIME_FORM if ASKS_FOR_A_TIME.search(question) is not None else None
