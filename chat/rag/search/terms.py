"""Words of questions: those that name the subject, and names."""

import re

from chat.rag.search.stop_words import STOP_WORDS, stop_words_for
from chat.rag.words import words

__all__ = ["STOP_WORDS", "words"]

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[.!?:\n]")
# Fillers; unlike some stop words ("not") none of them changes the meaning.
FILLERS = frozenset("ah oh ok okay so uh um well yeah yes".split())  # noqa: SIM905
MAX_WORDS = 32  # of a question; more words slow a search down without improving it


def content_words(text: str) -> list[str]:
    """Return the distinct words without stop words, in order; with stop words when there are no others."""
    distinct = list(dict.fromkeys(words(text)))
    return (subject_words(text) or distinct)[:MAX_WORDS]


def subject_words(text: str) -> list[str]:
    """Return the distinct words without stop words, in order."""
    distinct = list(dict.fromkeys(words(text)))
    stop_words = stop_words_for(distinct)
    return [word for word in distinct if word not in stop_words]


def names_in(text: str) -> frozenset[str]:
    """Return the words that look like names or identifiers, in lower case.

    These are words capitalised within a sentence, and words of three characters or more with a digit.
    """
    if text.isupper():
        return frozenset()
    names, end = set[str](), 0
    for match in WORD.finditer(text):
        # The first word of a sentence is capitalised in any case.
        starts_sentence = end == 0 or SENTENCE_END.search(text, end, match.start()) is not None
        word = match[0]
        has_digit = any(map(str.isdigit, word))
        if len(word) > 2 if has_digit else word[0].isupper() and not starts_sentence:
            names.update(words(word))
        end = match.end()
    return frozenset(names - STOP_WORDS)
