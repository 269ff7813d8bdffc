"""An extract in place of a summary: the user's own sentences that have to be remembered, word for word and in order.

Used where a model's summary is none. Knows no models and no rows.
"""

import re
from collections.abc import Sequence

from chat.prompting.text_splitter import CountTokens
from chat.rag.words import words
from chat.recall.statements import sentences, weight

HEADING = "The user said (where two lines differ, the later one counts):"
BULLET = "- "
MAX_SENTENCE_CHARS = 300
# Of a sentence that an earlier step kept already; above a statement with one name.
EARLIER_WEIGHT = 1.5
FILLING_SHARE = 0.5
_SPEAKER = re.compile(r"^(User|Assistant): ", re.MULTILINE)


def statements(pieces: Sequence[str], index: int, so_far: str) -> list[str]:
    """Return what a summary of the ``index``th piece has to hold: lines of the summary before it, and the user's
    sentences that are no questions."""
    new = (sentence for text in _user_texts(pieces, index) for sentence in sentences(text))
    return [*_lines(so_far), *(sentence for sentence in new if weight(sentence))]


def extract(pieces: Sequence[str], index: int, so_far: str, *, limit: int, count: CountTokens) -> str:
    """Return an extract of at most ``limit`` tokens of the ``index``th piece of a transcript and of the summary before
    it; empty if neither has a word."""
    candidates = [(line, max(EARLIER_WEIGHT, weight(line))) for line in _lines(so_far)]
    for text in _user_texts(pieces, index):
        candidates += [(sentence[:MAX_SENTENCE_CHARS], weight(sentence)) for sentence in sentences(text)]
    left = limit - count(HEADING) - 1
    # Other sentences say what the conversation was about: they may take a part of what is left at the end.
    n_filling = int(limit * FILLING_SHARE)
    chosen: set[int] = set()
    chosen_words: set[tuple[str, ...]] = set()
    # Of equal ones the later: what was corrected stands before its correction.
    for number in sorted(range(len(candidates)), key=lambda number: (-candidates[number][1], -number)):
        sentence, points = candidates[number]
        key = tuple(words(sentence))
        n_tokens = count(f"{BULLET}{sentence}\n")
        if key in chosen_words or n_tokens > left or (points == 0 and n_tokens > n_filling):
            continue
        chosen.add(number)
        chosen_words.add(key)
        left -= n_tokens
        n_filling -= n_tokens if points == 0 else 0
    if not chosen:
        return ""
    return "\n".join([HEADING, *(f"{BULLET}{candidates[number][0]}" for number in sorted(chosen))])


def _lines(summary: str) -> list[str]:
    lines = (line.removeprefix(BULLET).strip() for line in summary.splitlines() if line.strip() != HEADING)
    return [line for line in lines if line]


def _user_texts(pieces: Sequence[str], index: int) -> list[str]:
    """Return the user's texts in a piece, which may begin in the middle of a message."""
    speakers = [match[1] for piece in pieces[:index] for match in _SPEAKER.finditer(piece)]
    speaker, texts = (speakers or ["User"])[-1], list[str]()
    start = 0
    for match in _SPEAKER.finditer(pieces[index]):
        if speaker == "User":
            texts.append(pieces[index][start : match.start()])
        speaker, start = match[1], match.end()
    if speaker == "User":
        texts.append(pieces[index][start:])
    return texts
