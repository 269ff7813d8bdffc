"""Words of a question or a line: what counts as one, and which say nothing about the subject."""

import re

WORD = re.compile(r"\w+")
SENTENCE_START = re.compile(r"(^|[.!?:\n])\W*$")
# Not all stop words there are: the ones that make a question a question, and speech speech.
EMPTY = frozenset(
    """a about again ah all also am an and any anyone anything are as at be because been but by can could did do does
    doing done for from get give got had has have he her hers him his how i if in into is it its just know like
    make me mean mention mentioned might my no not of oh okay on or our really remember right said say saying says
    shall she should so some somebody someone something talk talked tell than that the their them then there these
    they thing things think this those to told uh um up us very was we well were what when where which who whom whose
    why will with would yeah yes you your s t re ve ll d m""".split()  # noqa: SIM905  a column of quotes reads worse
)
# What opens a sentence and adds nothing to it; unlike the ones above none of them turns it round.
FILLERS = frozenset("ah oh ok okay so uh um well yeah yes".split())  # noqa: SIM905
MAX_WORDS = 32  # of a question; more make a search slow and no better


def words(text: str) -> list[str]:
    # Not case-folded: the text indexes keep "Straße" as it is. Cut first: lower case of some letters is two.
    return [word.lower() for word in WORD.findall(text)]


def content_words(text: str) -> list[str]:
    """The words that say something, each once, in order; all of them when none does."""
    found = list(dict.fromkeys(words(text)))
    return ([word for word in found if word not in EMPTY] or found)[:MAX_WORDS]


def names_in(text: str) -> frozenset[str]:
    """The words that look like names or numbers of something, as ``words`` gives them: written large within a sentence,
    of letters and digits, or of three digits and more."""
    if text.isupper():
        return frozenset()
    found = {match[0].lower() for match in WORD.finditer(text) if _is_named(match, text)}
    return frozenset(found - EMPTY)


def _is_named(match: re.Match[str], text: str) -> bool:
    word = match[0]
    if any(map(str.isdigit, word)):
        return len(word) > 2
    # The first word of a sentence is written large whatever it is.
    return word[0].isupper() and not SENTENCE_START.search(text[: match.start()])
