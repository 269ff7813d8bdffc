"""Does a text name a time, and does a question ask for one? In the languages that questions are most often asked in.

An answer to "when" has a date, a day or an hour in it, whatever its other words are.
"""

import re

# A text that names a time is indexed under this word, and a question for a time searches it.
TIME_FORM = "\u02d0when"
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
ASKS_FOR_A_TIME = re.compile(
    r"\b(?:when|what (?:time|day|date|year)|which (?:day|date|year)|how long ago|deadlines?|due|until when|by when"
    r"|wann|frist|termin|abgabetermin|datum|stichtag|welchem tag|bis wann|um wie ?viel uhr"
    r"|cuándo|fecha|plazo|qué día|qué hora|quand|date|délai|échéance|quel jour|quelle heure)\b"
    r"|いつ|締め?切|期限|何時|何日|何月|什么时候|何时|几点|哪天|日期|截止|期限|متى|موعد|الموعد|تاريخ",
    re.IGNORECASE,
)


def names_a_time(text: str) -> bool:
    return NAMES_A_TIME.search(text) is not None


def asks_for_a_time(question: str) -> bool:
    return ASKS_FOR_A_TIME.search(question) is not None
