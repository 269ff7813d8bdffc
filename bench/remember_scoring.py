"""Scores of the answers of ``bench.remember``: does an answer give a fact, and does it refuse to give one?

An answer in another language than its question is wrong, unless it names the same value.
"""

import re
import unicodedata

from bench.remember_data import Fact
from chat.recall.statements import sentences

# Numbers may be written as words, and some nouns have forms that no ending explains. Without accents.
OTHER_FORMS = {
    "17": "seventeen\\w*|siebzehn\\w*|diecisiete",
    "18": "eighteen\\w*|achtzehn\\w*|dieciocho",
    "25": "twenty-? ?fi(?:ve|fth)|funfundzwanzig\\w*|veinticinco",
    "75": "seventy-? ?five|funfundsiebzig|setenta y cinco",
    "90": "ninety|neunzig|noventa",
    "120": "(?:one |a )?hundred (?:and )?twenty|(?:ein)?hundertzwanzig|ciento veinte",
    "690": "six hundred (?:and )?ninety|sechshundert(?:und)?neunzig|seiscientos noventa",
    "740": "seven hundred (?:and )?forty|siebenhundert(?:und)?vierzig|setecientos cuarenta",
    "820": "eight hundred (?:and )?twenty|achthundert(?:und)?zwanzig|ochocientos veinte",
    "nueces": "nuez",
    "cello": "violoncello",
    "violonchelo": "violoncelo|cello|chelo",
    "ferry": "ferries",
    "turkis": "turkis\\w+",
}
ENDINGS, LONG_WORD = ("en", "es", "e", "s", "n"), 6
ARTICLE = re.compile(r"^(?:den|die|das) ")
MARKDOWN = re.compile(r"[*_`\"“”„«»>]")
_BETWEEN = (
    r"\s+(?:(?:on|in|at|the|every|by|for|of|am|im|der|dem|den|das|die|mit|von|um|jeden|el|la|los|en|cada|a|de|por)"
    r"\s+){0,3}"
)
# In front of a value that does not hold, and of one that held before. Not "no, the 18th".
REJECTS = (
    r"\b(?:not|no longer|isn't|instead of|rather than|nicht(?: mehr)?|kein\w*|statt|anstatt|anstelle von|als"
    r"|no|ya no|en vez de[l]?|en lugar de[l]?|than)"
) + _BETWEEN
FORMERLY = (
    r"\b(?:was|were|previously|originally|formerly|before|war|waren|vorher|zuvor|ursprunglich|fruher"
    r"|era|eran|antes|al principio|primero)"
) + _BETWEEN
CHANGED = (
    r"(?:to|correct\w*|chang\w*|moved?|but|now|then|actually|wait|korr\w+|gean\w+|verschob\w+|auf|sondern|jetzt|doch|aber|nein"
    r"|correc\w+|corrig\w+|cambi\w+|realidad|ahora|al?|sino|pero|espera|despues|->|→)"
)
_NEGATED = (
    r"(?:do not|don't|did not|didn't|have not|haven't|cannot|can't|could not|couldn't|am not able to|am unable to)"
)
REFUSALS = {
    "en": rf"\b(?:i|we|you|there) (?:\w+ )?{_NEGATED} (?:\w+ )?(?:know|have|find|recall|remember|see|provide|provided"
    r"|answer|tell|told|determine|said|say|mention|mentioned|access|specify|specified|given|stated)\b"
    r"|\b(?:i am|i'm|it is|it's|that is) "
    r"(?:sorry|not (?:sure|aware|clear|certain|known|able)|un(?:sure|known|clear|able))"
    r"|\bno (?:information|mention|record|details|data)\b|\bno one (?:mention|said)"
    r"|(?:\bnot|n't|\bnever) (?:\w+ )?(?:been )?(?:mention|provid|specif|stated|told|said|given|available|includ|known)"
    r"|\bis (?:unknown|unclear)|\bapologi[sz]e",
    "de": r"\bweiss (?:ich )?(?:es |das |leider )*nicht"
    r"|nicht (?:\w+ )?(?:bekannt|erwahnt|gesagt|genannt|angegeben|sicher|mitgeteilt|verfugbar|festgelegt|definiert)"
    r"|\bkeine? (?:\w+ )?(?:info\w*|angabe\w*|ahnung|daten|erwahnung|hinweis\w*)|tut mir (?:sehr )?leid|\bunbekannt"
    r"|entschuldig"
    r"|\bkann (?:ich )?(?:\w+ ){0,4}nicht (?:\w+ )?(?:sagen|beantworten|wissen|finden|geben|bestimmen|nennen)"
    r"|\bhabe (?:ich )?(?:leider )?kein",
    "es": r"\bno (?:lo )?se\b|\bno (?:\w+ )?(?:tengo|dispongo|puedo|has|hay|recuerdo|encuentro|conozco) (?:\w+ ){0,4}"
    r"(?:informacion|datos?|dicho|mencion\w*|dado|acceso|decir\w*|responder|proporcionar|saber|registro|detalles)"
    r"|\bno (?:se |esta |ha |fue |has )*(?:mencion\w+|dij\w+|dicho|especific\w+|proporcion\w+|indic\w+|conoc\w+"
    r"|disponible)"
    r"|lo siento|\bdesconoc\w+|no (?:estoy segur\w|esta claro|sabemos)|perdon",
}


def folded(text: str) -> str:
    """Return the text in lower case without accents and marks of Markdown."""
    decomposed = unicodedata.normalize("NFKD", MARKDOWN.sub("", text).replace("’", "'").casefold())
    return " ".join("".join(char for char in decomposed if not unicodedata.combining(char)).split())


def is_refused(answer: str, language: str) -> bool:
    return re.search(REFUSALS[language], folded(answer)) is not None


def is_right(answer: str, fact: Fact, language: str) -> bool:
    """Tell whether an answer gives the value that holds; what a refusal names does not count."""
    claims = folded(" ".join(sentence for sentence in sentences(answer) if not is_refused(sentence, language)))
    if fact.wrong and re.search(folded(fact.wrong), claims):
        return False
    value = _pattern(fact.value)
    if not fact.old:
        return _is_claimed(value, claims)
    old = _pattern(fact.old)
    claims = re.sub(f"(?:{REJECTS}|{FORMERLY}){old}|{old}.{{0,60}}?\\b{CHANGED}(?=\\W.{{0,60}}?{value})", " ", claims)
    return _is_claimed(value, claims) and re.search(old, claims) is None


def _is_claimed(value: str, claims: str) -> bool:
    return re.search(value, re.sub(f"{REJECTS}{value}", " ", claims)) is not None


def _pattern(value: str) -> str:
    text = ARTICLE.sub("", folded(value))
    others = f"|\\b(?:{OTHER_FORMS[text]})\\b" if text in OTHER_FORMS else ""
    if text.isdigit():
        return rf"(?:(?<![\w.,]){text}(?!\d|[.,](?!\d{{1,2}}\.)\d*[1-9]|[.,]\d{{3}}){others})"
    stem = next(
        (text.removesuffix(ending) for ending in ENDINGS if text.endswith(ending) and len(text) >= LONG_WORD), text
    )
    stem = re.sub(r"(?<=[a-z])(?=\d)", "[ -]?", re.escape(stem))
    return rf"(?:\b{stem}(?:{'|'.join(ENDINGS)}|'s)?(?!\w){others})"
