"""Query rewriting: give a follow-up question the names it refers to. "And what did she say about the budget?" cannot be
searched without knowing who "she" is.

Works on words alone, English and German, so that it delays no first token. Knows no store and no prompt.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chat.models import Role
from chat.prompting.message_groups import DialogueMessage
from chat.rag.retrieval.citations import cited_labels
from chat.services.questions.referring_words import CONNECTIVES, EMPTY, MANY, PERSONS, THINGS, TIMES

# A longer message names its topic itself.
MAX_QUESTION_CHARS = 200
# Earlier questions among which the one that opened the topic is looked for.
MAX_EARLIER = 6
# In a question with more content words, "that" or "it" refers to one of them.
MAX_CONTENT_WORDS = 2
MAX_NAMES = 3

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
# German forms of polite address, which are pronouns only in lower case.
_ADDRESS = ("Sie", "Ihr", "Ihre", "Ihren", "Ihnen")


@dataclass(frozen=True, kw_only=True)
class EarlierQuestion:
    """``cited`` are the speakers that its answer cited, ``all_speakers`` those of all its sources."""

    question: str
    cited: tuple[str, ...] = ()
    all_speakers: tuple[str, ...] = ()

    @classmethod
    def of(cls, question: DialogueMessage, answer: DialogueMessage) -> "EarlierQuestion":
        # A long answer takes seconds to read for labels, which stand for nothing where no sources were shown.
        labels = cited_labels(answer.text) if question.sources and answer.role == Role.ASSISTANT else set()
        return cls(
            question=question.text,
            cited=_speakers(source.speaker for source in question.sources if source.label in labels),
            all_speakers=_speakers(source.speaker for source in question.sources),
        )


@dataclass(frozen=True)
class RewrittenQuery:
    """``refers_to`` is the inserted text, empty for a question that stands alone."""

    text: str
    refers_to: str = ""


def earlier_questions(dialogue: Sequence[DialogueMessage]) -> list[EarlierQuestion]:
    """Return the questions before the last message, with the speakers of their sources."""
    pairs = pairwise(dialogue)
    questions = [EarlierQuestion.of(message, after) for message, after in pairs if message.role == Role.USER]
    return questions if dialogue and dialogue[-1].role == Role.USER else questions[:-1]


def rewrite_query(question: str, earlier: Sequence[EarlierQuestion]) -> RewrittenQuery:
    if not earlier or len(question) > MAX_QUESTION_CHARS:
        return RewrittenQuery(question)
    words = _WORD.findall(question)
    content = [word for word in words if not _is_in(word, EMPTY, CONNECTIVES, PERSONS, THINGS, TIMES)]
    persons = [word for word in words if _is_in(word, PERSONS) and word not in _ADDRESS]
    points_back = any(_is_thing(word, after) for word, after in pairwise([*words, ""]))
    is_joined = bool(words) and _is_in(words[0], CONNECTIVES)
    if content and not (is_joined or persons or (points_back and len(content) <= MAX_CONTENT_WORDS)):
        return RewrittenQuery(question)
    *before, last = earlier[-MAX_EARLIER:]
    # The question before may be a follow-up itself: its own rewritten form carries the topic.
    topic = rewrite_query(last.question, before).text[:MAX_QUESTION_CHARS]
    speakers = [name for turn in reversed(earlier) for name in (*turn.cited, *turn.all_speakers)]
    # The names in the topic, else the speakers that the latest answer with citations cites.
    cited = next((list(turn.cited) for turn in reversed(earlier) if turn.cited), [])
    names = (_named(topic, speakers) or cited)[:MAX_NAMES]
    if not content or (points_back and not persons) or not names:
        return RewrittenQuery(f"{_without_times(topic, words)} {question}".strip(), topic)
    if _named(question, names):
        return RewrittenQuery(question)
    if persons:
        referents = " ".join(names if _is_in(persons[0], MANY) else names[:1])
        text = re.sub(rf"\b{re.escape(persons[0])}\b", lambda _: referents, question, count=1)
        return RewrittenQuery(text, referents)
    return RewrittenQuery(f"{question} {' '.join(names)}", " ".join(names))


def _speakers(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _named(text: str, names: Iterable[str]) -> list[str]:
    """Return the names of which the text has at least one word."""
    words = {word.casefold() for word in _WORD.findall(text)}
    return list(dict.fromkeys(name for name in names if words & {part.casefold() for part in _WORD.findall(name)}))


def _is_in(word: str, *lists: frozenset[str]) -> bool:
    return any(word.casefold() in words for words in lists)


def _is_thing(word: str, after: str) -> bool:
    """Recognize a word that refers back to a thing; "das Budget" has an article, "war das wichtig" has a pronoun."""
    is_article = word.casefold() in ("das", "dies", "diese", "dieses") and after[:1].isupper()
    return _is_in(word, THINGS) and not is_article


def _without_times(topic: str, words: Sequence[str]) -> str:
    """Remove the times of the topic if the question brings another."""
    if not any(_is_in(word, TIMES) for word in words):
        return topic
    return " ".join(word for word in topic.split() if not _is_in(word.strip("?.,!"), TIMES))
