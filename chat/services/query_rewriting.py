"""What a follow-up question is searched with: "and what did she say about the budget?" needs to know who she is.

Works on words alone, English and German, so that it costs nothing before the first token. Knows no store and no prompt.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.schemas.answers import cited_labels
from chat.services.referring_words import CONNECTIVES, EMPTY, MANY, PERSONS, THINGS, TIMES

# A longer message says itself what it is about.
MAX_QUESTION_CHARS = 200
# Of how many earlier questions the one that started it all is looked for.
MAX_EARLIER = 6
# With more words of its own, "that" or "it" will point within the question.
MAX_OWN_WORDS = 2
MAX_NAMES = 3

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


@dataclass(frozen=True, kw_only=True)
class EarlierQuestion:
    """A question asked before; ``cited`` are the speakers its answer quoted, ``shown`` all that it could."""

    question: str
    cited: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class RewrittenQuery:
    """``refers_to`` is what was put in, empty for a question that stands alone."""

    text: str
    refers_to: str = ""


def earlier_questions(said: Sequence[DialogueMessage]) -> list[EarlierQuestion]:
    """The questions before the last, with the speakers of what they were shown."""
    asked = [_earlier(each, after) for each, after in pairwise(said) if each.role == Role.USER]
    return asked if said and said[-1].role == Role.USER else asked[:-1]


def rewrite_query(question: str, earlier: Sequence[EarlierQuestion]) -> RewrittenQuery:
    """The text to search with."""
    if not earlier or len(question) > MAX_QUESTION_CHARS:
        return RewrittenQuery(question)
    words = _WORD.findall(question)
    own = [word for word in words if not _is_in(word, EMPTY, CONNECTIVES, PERSONS, THINGS, TIMES)]
    # "Sie" and "Ihr" are how one speaks to strangers.
    persons = [word for word in words if _is_in(word, PERSONS) and word not in ("Sie", "Ihr", "Ihre", "Ihren", "Ihnen")]
    points_back = any(_is_thing(word, after) for word, after in pairwise([*words, ""]))
    is_joined = bool(words) and _is_in(words[0], CONNECTIVES)
    if own and not (is_joined or persons or (points_back and len(own) <= MAX_OWN_WORDS)):
        return RewrittenQuery(question)
    *before, last = earlier[-MAX_EARLIER:]
    # The question before may be a follow-up itself: what it was searched with is what this one goes on from.
    topic = rewrite_query(last.question, before).text[:MAX_QUESTION_CHARS]
    names = _names(topic, earlier)
    if not own or (points_back and not persons) or not names:
        return RewrittenQuery(f"{_without_times(topic, words)} {question}".strip(), topic)
    if _named(question, names):
        return RewrittenQuery(question)
    if persons:
        meant = " ".join(names if _is_in(persons[0], MANY) else names[:1])
        return RewrittenQuery(re.sub(rf"\b{re.escape(persons[0])}\b", lambda _: meant, question, count=1), meant)
    return RewrittenQuery(f"{question} {' '.join(names)}", " ".join(names))


def _earlier(asked: DialogueMessage, answer: DialogueMessage) -> EarlierQuestion:
    labels = cited_labels(answer.text) if answer.role == Role.ASSISTANT else set()
    return EarlierQuestion(
        question=asked.text,
        cited=_speakers(source.speaker for source in asked.sources if source.label in labels),
        shown=_speakers(source.speaker for source in asked.sources),
    )


def _speakers(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _names(topic: str, earlier: Sequence[EarlierQuestion]) -> list[str]:
    """Who is talked about: those the topic names, else those whom the latest answer that cites anybody quotes."""
    known = [name for each in reversed(earlier) for name in (*each.cited, *each.shown)]
    named = _named(topic, known)
    cited = next((list(each.cited) for each in reversed(earlier) if each.cited), [])
    return (named or cited)[:MAX_NAMES]


def _named(text: str, names: Iterable[str]) -> list[str]:
    """Names that the text has a word of."""
    words = {word.casefold() for word in _WORD.findall(text)}
    return list(dict.fromkeys(name for name in names if words & {part.casefold() for part in _WORD.findall(name)}))


def _is_in(word: str, *lists: frozenset[str]) -> bool:
    return any(word.casefold() in each for each in lists)


def _is_thing(word: str, after: str) -> bool:
    """Whether a word points to something said before; "das Budget" has an article, "war das wichtig" has not."""
    is_article = word.casefold() in ("das", "dies", "diese", "dieses") and after[:1].isupper()
    return _is_in(word, THINGS) and not is_article


def _without_times(topic: str, words: Sequence[str]) -> str:
    """The topic; without its own time, if the question brings another."""
    if not any(_is_in(word, TIMES) for word in words):
        return topic
    return " ".join(word for word in topic.split() if not _is_in(word.strip("?.,!"), TIMES))
