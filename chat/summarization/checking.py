"""Check of a summary before it is used: a small model repeats itself, continues the conversation, or makes things up.

Knows no models and no rows.
"""

import re
from collections import Counter
from collections.abc import Sequence

from chat.prompting.source_block import FENCE
from chat.rag.search.terms import names_in
from chat.rag.words import words
from chat.recall.statements import QUESTION_MARKS

# A text repeats itself when so many of its word sequences came before, or one of its lines comes so often.
GRAM_WORDS, MIN_GRAMS, REPEATED_SHARE = 4, 12, 0.35
MAX_SAME_LINES = 2
# Of the names and numbers of a summary, when it has so many.
KNOWN_SHARE, MIN_NAMES = 0.6, 3
# Of the names and numbers in the user's statements.
KEPT_SHARE = 0.5
# A summary has at most this part of its source's words, unless the source is short.
MAX_LENGTH_SHARE, MIN_SOURCE_WORDS = 0.9, 40
SPEAKER = re.compile(
    r"^[^\w\n]{0,20}(?:user|assistant|system|model|human|gemma|benutzer|nutzer|assistent|usuario|asistente)"
    r"[\s*_]{0,8}(?:\([^)\n]{0,100}\))?[\s*_]{0,8}:",
    re.IGNORECASE | re.MULTILINE,
)
MAX_SPEAKERS = 1
CODE_FENCES = ("```", "~~~", FENCE)
CONTROL = re.compile(r"<\|?(?:start|end|im_start|im_end|eot|bos|eos)[^>\n]{0,20}>|</?s>")


def problem_of(summary: str, source: str, statements: Sequence[str] = ()) -> str:
    """Return why ``summary`` is no summary of ``source``, or worse than an extract of the ``statements`` in it; empty
    if it may be used."""
    text = summary.strip()
    if not text:
        return "it is empty"
    if any(fence in text for fence in CODE_FENCES) or CONTROL.search(text):
        return "it has a code fence or marks of a prompt"
    if len(SPEAKER.findall(text)) > MAX_SPEAKERS:
        return "it is a transcript"
    if text.endswith(QUESTION_MARKS):
        return "it ends with a question"
    in_order = words(text)
    if _repeats_itself(text, in_order):
        return "it repeats itself"
    source_words = words(source)
    if len(source_words) >= MIN_SOURCE_WORDS and len(in_order) > MAX_LENGTH_SHARE * len(source_words):
        return "it is not shorter than its source"
    named = names_in(text) | {word for word in in_order if any(map(str.isdigit, word))}
    if len(named) >= MIN_NAMES and len(named.intersection(source_words)) < KNOWN_SHARE * len(named):
        return "its names and numbers are not in the source"
    to_keep = {name for statement in statements for name in names_in(statement)}
    if len(to_keep) >= MIN_NAMES and len(to_keep.intersection(in_order)) < KEPT_SHARE * len(to_keep):
        return "it leaves out most of the names and numbers that the user stated"
    return ""


def _repeats_itself(text: str, in_order: list[str]) -> bool:
    lines = Counter(line.strip().casefold() for line in text.splitlines() if line.strip())
    if lines.most_common(1)[0][1] > MAX_SAME_LINES:
        return True
    grams = [tuple(in_order[start : start + GRAM_WORDS]) for start in range(len(in_order) - GRAM_WORDS + 1)]
    return len(grams) >= MIN_GRAMS and len(set(grams)) < (1 - REPEATED_SHARE) * len(grams)
