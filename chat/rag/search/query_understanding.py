"""What a question says about where to look: its dates, its speakers, its feelings, and whether it wants the newest."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from chat.rag.search.terms import EMPTY, WORD, words
from chat.rag.search.time_expressions import WORDS as TIME_WORDS
from chat.rag.search.time_expressions import DateSpan, is_about_the_latest, span_in

# What speakers' feelings are called by those who label them, and by those who ask.
FEELINGS = {
    "angry": ("angry", "anger", "mad", "furious", "annoyed", "irritated"),
    "sad": ("sad", "sadness", "unhappy", "depressed", "disappointed"),
    "happy": ("happy", "happiness", "joy", "joyful", "glad", "pleased", "cheerful", "delighted", "excited"),
    "fear": ("fear", "fearful", "afraid", "scared", "anxious", "worried", "nervous", "frightened"),
    "surprise": ("surprise", "surprised", "astonished", "amazed", "shocked"),
    "disgust": ("disgust", "disgusted", "appalled"),
    "calm": ("calm", "relaxed"),
}
POINTING = EMPTY.union(TIME_WORDS, *FEELINGS.values(), ("sound", "sounded", "feel", "felt"))


@dataclass(frozen=True)
class QueryHints:
    """``speakers`` and ``emotions`` are as the index holds them, in lower case. ``only_points``: nothing else is said,
    no subject ("What did Sarah say yesterday?")."""

    span: DateSpan | None = None
    is_latest: bool = False
    speakers: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    only_points: bool = False

    def as_dict(self) -> dict[str, Any]:
        """In the names of SourceFilters, and ``latest``; only what there is."""
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
    """``speakers`` and ``emotions`` are the ones that can be found at all."""
    understood = QueryHints(
        span=span_in(text, today),
        is_latest=is_about_the_latest(text),
        speakers=tuple(_named(text, speakers)),
        emotions=tuple(_felt(text, emotions)),
    )
    return replace(understood, only_points=_only_points(text, understood))


def _only_points(text: str, understood: QueryHints) -> bool:
    pointing = POINTING.union(*map(words, understood.speakers))
    subject = [word for word in words(text) if word.casefold() not in pointing and not word.isdigit()]
    return bool(understood.as_dict()) and not subject


def _named(text: str, speakers: Iterable[str]) -> list[str]:
    """Whose whole name, or a part of it, is among the words; "will" and "mark" are names when written large."""
    written = WORD.findall(text)
    is_shouted_or_whispered = text.islower() or text.isupper()
    names = {word.casefold() for word in written if _may_be_name(word) or is_shouted_or_whispered}
    # The first word of a sentence is written large whatever it is.
    names -= EMPTY
    return sorted(name for name in speakers if names.intersection(part for part in words(name) if len(part) > 1))


def _may_be_name(word: str) -> bool:
    # Scripts without capitals have no small letters either.
    return word[0].isalpha() and not word[0].islower()


def _felt(text: str, emotions: Iterable[str]) -> list[str]:
    said = set(words(text))
    meant = {name for forms in FEELINGS.values() if said.intersection(forms) for name in forms} | said
    return sorted(emotion for emotion in emotions if emotion and emotion in meant)
