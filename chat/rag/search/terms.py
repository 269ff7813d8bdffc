"""Words of questions and passages: tokenization, stop words and names."""

import re

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[.!?:\n]")
# Stop words of questions and of spoken language; not a general list.
STOP_WORDS = frozenset(
    """a about again ah all also am an and any anyone anything are as at be because been but by can could did do does
    doing done for from get give got had has have he her hers him his how i if in into is it its just know like
    make me mean mention mentioned might my no not of oh okay on or our really remember right said say saying says
    shall she should so some somebody someone something talk talked tell than that the their them then there these
    they thing things think this those to told uh um up us very was we well were what when where which who whom whose
    why will with would yeah yes you your s t re ve ll d m""".split()  # noqa: SIM905  a column of quotes reads worse
)
# Fillers; unlike some stop words ("not") none of them changes the meaning.
FILLERS = frozenset("ah oh ok okay so uh um well yeah yes".split())  # noqa: SIM905
MAX_WORDS = 32  # of a question; more words slow a search down without improving it


def words(text: str) -> list[str]:
    """Return all words in lower case."""
    # Not case-folded: the text indexes keep "Straße" as it is.
    # Split first: the lower case of some letters has two characters.
    return [word.lower() for word in WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """Return the distinct words without stop words, in order; with stop words when there are no others."""
    distinct = list(dict.fromkeys(words(text)))
    return ([word for word in distinct if word not in STOP_WORDS] or distinct)[:MAX_WORDS]


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
        if _is_name(match[0], starts_sentence=starts_sentence):
            names.add(match[0].lower())
        end = match.end()
    return frozenset(names - STOP_WORDS)


def _is_name(word: str, *, starts_sentence: bool) -> bool:
    if any(map(str.isdigit, word)):
        return len(word) > 2
    return word[0].isupper() and not starts_sentence
