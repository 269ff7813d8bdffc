"""Query understanding: dates, speakers, emotions and "latest" read from the words of a question."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from chat.rag.search.calendar_spans import DateSpan
from chat.rag.search.emotion_words import EMOTION_WORDS, labels_in
from chat.rag.search.terms import STOP_WORDS, WORD, subject_words, words
from chat.rag.search.time_expressions import WORDS as TIME_WORDS
from chat.rag.search.time_expressions import is_about_the_latest, time_in
from chat.rag.words import IS_UNSPACED, bare

HINT_WORDS = STOP_WORDS.union(TIME_WORDS, *EMOTION_WORDS.values(), ("sound", "sounded", "feel", "felt"))


@dataclass(frozen=True)
class QueryHints:
    """Hints of a question; ``speakers`` and ``emotions`` are in lower case, as in the index.

    ``has_no_subject``: the question consists of hints alone ("What did Sarah say yesterday?").
    """

    span: DateSpan | None = None
    is_latest: bool = False
    speakers: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    has_no_subject: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the non-empty hints by the field names of SourceFilters, and ``latest``."""
        span = self.span or DateSpan(None, None)
        facts = {
            "speakers": list(self.speakers),
            "start_date": span.start and span.start.isoformat(),
            "end_date": span.end and span.end.isoformat(),
            "bias_emotions": list(self.emotions),
            "latest": self.is_latest,
        }
        return {name: value for name, value in facts.items() if value}


def understand_query(text: str, *, today: date, speakers: Iterable[str], emotions: Iterable[str]) -> QueryHints:
    """Read the hints of ``text``; ``speakers`` and ``emotions`` are those that occur in the searched rows."""
    question_words = set(words(text))
    named = time_in(text, today)
    synonyms = labels_in(text)
    hints = QueryHints(
        span=named.span if named else None,
        is_latest=is_about_the_latest(text),
        speakers=tuple(_speakers_in(text, speakers)),
        emotions=tuple(sorted(emotion for emotion in emotions if emotion and emotion in synonyms | question_words)),
    )
    hint_words = HINT_WORDS.union(*map(words, (*hints.speakers, named.text if named else "")))
    # Without its time, since pairs of characters would reach from it into the words beside it.
    rest = bare(text).replace(bare(named.text), " ") if named else text
    subject = [word for word in subject_words(rest) if word not in hint_words and not word.isdigit()]
    return replace(hints, has_no_subject=(bool(hints.as_dict()) and not subject))


def without_speakers(text: str, speakers: Iterable[str]) -> str:
    """Return the question without the names of ``speakers``, as far as something is left: who spoke is no subject."""
    parts = {part for name in speakers for part in words(name)}
    for name in speakers:
        if IS_UNSPACED.search(name):
            text = text.replace(name, "")
    left = " ".join(word for word in text.split() if not parts.intersection(words(word)))
    return left if any(map(str.isalnum, left)) else text


def _speakers_in(text: str, speakers: Iterable[str]) -> list[str]:
    """Return the speakers with a part of their name among the words; "will" and "mark" are names when capitalised."""
    written = WORD.findall(text)
    has_one_case = text.islower() or text.isupper()
    # Scripts without upper case have no lower case either.
    capitalised = [word for word in written if (word[0].isalpha() and not word[0].islower()) or has_one_case]
    names = {part for word in capitalised for part in words(word)}
    # The first word of a sentence is capitalised in any case.
    names -= STOP_WORDS
    return sorted(name for name in speakers if names.intersection(part for part in words(name) if len(part) > 1))
