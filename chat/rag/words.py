"""Words of texts in every script, as the text index stores them and as questions are compared with them.

Equal are upper and lower case, accented and plain letters, composed and decomposed characters, wide and narrow ones,
and numbers with and without separators. Scripts without spaces between words are indexed by pairs of characters.
"""

import re
import unicodedata
from collections.abc import Iterator

from chat.rag.time_words import time_forms
from inference.text_forms import folded

# Thai, Lao, Burmese, Khmer, kana, ideographs and Hangul; Korean has spaces, but particles are written with the word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
# The vowel signs of Indic scripts are marks, which are no word characters elsewhere.
INDIC = "\u0900-\u0dff"
WORD = re.compile(rf"[{UNSPACED}]+|(?:(?![{UNSPACED}])[{INDIC}]|(?![{UNSPACED}_])\w)+")
IS_UNSPACED = re.compile(f"[{UNSPACED}]")
# Accents, Hebrew points, Arabic vowel signs and the bar that stretches Arabic words.
MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0640]"
)
# Letters that are written for each other but have no decomposition.
ALIKE = {"\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00e6": "ae", "\u0153": "oe", "\u0131": "i"} | {
    "\u0649": "\u064a",  # alef maksura, yeh
    "\u0629": "\u0647",  # teh marbuta, heh
}
GROUPED = re.compile(r"(?<![\w.,'])\d{1,3}(?:([.,'\u2019\u00a0\u202f ])\d{3})(?:\1\d{3})*(?![\d'])")
DECIMAL = re.compile(r"(?<![\w.,:/-])(\d+)[.,](\d{1,2})(?![\w:/-]|[.,]\d)")
MAX_WORD_CHARS = 100  # longer words are cut; PostgreSQL rejects those of more than 2,046 bytes
POINT = "p"  # the databases divide words at a real point
# A word longer than this is also indexed by its beginning, for its other forms ("budget" and "budgets").
STEM_CHARS = 5
STEM_MARK = "\u02d0"  # a letter of no alphabet
HEBREW_WORD, HEBREW_PREFIXES = re.compile("[\u05d0-\u05ea]+"), "\u05d4\u05d5\u05d1\u05db\u05dc\u05de\u05e9"
ARABIC_WORD = re.compile("[\u0621-\u064a]+")
ARABIC_PREFIX = re.compile("(?:[\u0648\u0641]?(?:[\u0628\u0643]?\u0627\u0644|\u0644\u0644)|\u0648)(?=.{3})")


def words(text: str) -> list[str]:
    """Return the words in order, in their index form; pairs of characters where a script has no spaces."""
    ungrouped = GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), bare(text))
    in_order: list[str] = []
    for match in WORD.finditer(DECIMAL.sub(rf"\1{POINT}\2", ungrouped)):
        run = match[0]
        if IS_UNSPACED.match(run):
            in_order += [run[start : start + 2] for start in range(len(run) - 1)] or [run]
        else:
            in_order.append(run[:MAX_WORD_CHARS])
    return in_order


def with_variants(word: str) -> Iterator[str]:
    """Yield ``word`` and the other forms under which the index has it: its beginning, and it without a prefix."""
    yield word
    if len(word) > STEM_CHARS and word.isalpha() and not IS_UNSPACED.match(word):
        yield STEM_MARK + word[:STEM_CHARS]
    if ARABIC_WORD.fullmatch(word) and (prefix := ARABIC_PREFIX.match(word)):
        yield word[prefix.end() :]
    if HEBREW_WORD.fullmatch(word):
        for n_letters in (1, 2):
            if len(word) - n_letters >= 2 and set(word[:n_letters]) <= set(HEBREW_PREFIXES):
                yield word[n_letters:]


def index_form(text: str) -> str:
    """Return the words of ``text`` with their variants, separated by spaces: the columns that the databases index."""
    forms = [form for word in words(text) for form in with_variants(word)]
    return " ".join([*forms, *time_forms(text)])


def bare(text: str) -> str:
    """Return the folded text without accents and the like."""
    return folded(text).translate(_BARE)


class _BareLetters(dict[int, str]):
    """Letters without marks, by code point; computed once for each."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        plain = MARKS.sub("", unicodedata.normalize("NFD", letter))
        if unicodedata.normalize("NFD", letter) == plain:
            plain = letter  # also keeps the marks of kana and the parts of Hangul syllables together
        if letter.isdigit() and letter.isdecimal():
            plain = str(unicodedata.decimal(letter))
        self[code] = ALIKE.get(plain, plain)
        return self[code]


_BARE = _BareLetters()
