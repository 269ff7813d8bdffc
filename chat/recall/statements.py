"""Kinds of sentences: questions, corrections, and statements that have to be remembered. English, German and Spanish; a
sentence in another language is judged by its names, numbers and times alone."""

import re
from collections.abc import Iterator

from chat.rag.search.terms import names_in
from chat.rag.time_words import names_a_time

CORRECTS = re.compile(
    r"\b(?:actually|correction|i was wrong|i meant|not the|instead|changed?|no longer|moved to|rather than|sorry"
    r"|sondern|korrektur|eigentlich|stattdessen|geändert|verschoben|nicht mehr|doch (?:nicht|am|um|erst|lieber)|vertan"
    r"|corrección|en realidad|mejor dicho|me equivoqué|cambi\w+|ya no|en vez de|en lugar de|perdón|sino)\b"
    r"|^\W*(?:no|nein)\b",
    re.IGNORECASE,
)
# Decisions, preferences, needs and relations.
REMEMBER = re.compile(
    r"\b(?:decided?|decision|chose|choose|prefers?|favou?rite|likes?|love|hate|want|need|must|plan|agreed?|always|never"
    r"|allergic|remember|name is|called|lives?|born|budget|deadline"
    r"|entschieden|entscheide|nehme[n]?|möchte|mag|liebe[r]?|lieblings\w*|hasse|will|brauche|muss|plane|vereinbart|immer"
    r"|nie|allergisch|heißt?|heiße|wohn\w*|geboren|merk\w*|frist"
    r"|decid\w+|prefier\w+|favorit\w+|gust\w+|quier\w+|odi\w+|necesit\w+|debo|siempre|nunca|alérgic\w+|llam\w+|viv\w+"
    r"|recuerd\w+|presupuesto|plazo)\b",
    re.IGNORECASE,
)
QUESTION_MARKS = ("?", "？", "؟")
# Not after "Dr." or "17.": abbreviations and ordinal numbers.
_SENTENCE_END = re.compile(
    r"(?:(?<=[^\W\d][^\W\d][^\W\d]\.)|(?<=[!?…。！？؟]))[\"')\]”’]*\s+|\n+"
    r"|(?<=[。！？])(?![\"')\]”’」』）。！？])"  # scripts without spaces
)
_STATEMENT_END = re.compile(r"[.!。！]\s")
_NUMBER = re.compile(r"\d")


def sentences(text: str) -> Iterator[str]:
    yield from filter(None, (sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence))


def is_question(text: str) -> bool:
    """Tell whether a text asks and states nothing: all its sentences end with a question mark."""
    return text.rstrip().endswith(QUESTION_MARKS) and not _STATEMENT_END.search(text)


def is_correction(text: str) -> bool:
    return CORRECTS.search(text) is not None


def weight(sentence: str) -> float:
    """Return how much a sentence has to be remembered; 0 for a question and for one that names nothing."""
    if is_question(sentence):
        return 0.0
    parts = (
        1.0 * bool(names_in(sentence)),
        1.0 * bool(_NUMBER.search(sentence)),
        1.0 * names_a_time(sentence),
        1.5 * bool(REMEMBER.search(sentence)),
        1.0 * is_correction(sentence),
    )
    return sum(parts)
