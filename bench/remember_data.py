"""Scripted conversations for ``bench.remember``: facts that the user states, small talk around them, and questions in
other words, in English, German and Spanish (``remembered/*.toml``)."""

import random
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "remembered"
LANGUAGES = ("en", "de", "es")
N_PLAIN, N_CORRECTED, N_UNANSWERABLE = 9, 3, 4
MIN_TURNS, MAX_TURNS = 25, 60


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A statement with its question. ``value`` is what a right answer names. One with a ``correction`` had the value
    ``old`` before. ``wrong``: a pattern of answers that name the value and state the opposite."""

    statement: str
    question: str
    value: str
    correction: str = ""
    old: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Talk:
    """``turns``: what user and assistant say, in order; ``unanswerable``: questions about which nothing was said."""

    language: str
    turns: list[tuple[str, str]]
    facts: list[Fact]
    unanswerable: list[str]


@cache
def script(language: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


def talk_of(language: str, *, seed: int, n_turns: int | None = None) -> Talk:
    """Return a conversation with all facts in its first four fifths, corrections behind what they correct."""
    rng, texts = random.Random(f"{language}/{seed}"), script(language)
    n_turns = n_turns or rng.randint(MIN_TURNS, MAX_TURNS)
    plain = [row for row in texts["facts"] if "corrects" not in row]
    corrected = [row for row in texts["facts"] if "corrects" in row]
    facts = [_fact(row, rng) for row in rng.sample(plain, N_PLAIN) + rng.sample(corrected, N_CORRECTED)]
    rng.shuffle(facts)
    statements = [fact.statement for fact in facts]
    for fact in facts:
        if fact.correction:
            statements.insert(rng.randint(statements.index(fact.statement) + 1, len(statements)), fact.correction)
    places = sorted(rng.sample(range(1, n_turns * 4 // 5), len(statements)))
    stated = dict(zip(places, statements, strict=True))
    small_talk = iter(rng.sample(texts["talk"], n_turns - len(stated)))
    turns: list[tuple[str, str]] = []
    for number in range(n_turns):
        if number in stated:
            turns.append((rng.choice(texts["openings"]) + stated[number], rng.choice(texts["noted"])))
        else:
            question, answer = next(small_talk)
            turns.append((question, answer))
    return Talk(language, turns, facts, rng.sample(texts["unanswerable"], N_UNANSWERABLE))


def only_facts(talk: Talk) -> Talk:
    """Return the conversation without its small talk."""
    said = tuple(text for fact in talk.facts for text in (fact.statement, fact.correction) if text)
    return replace(talk, turns=[turn for turn in talk.turns if turn[0].endswith(said)])


def _fact(row: dict[str, Any], rng: random.Random) -> Fact:
    first, second = rng.sample(row["values"], 2)
    statement, wrong = row["says"].format(v=first), row.get("wrong", "")
    if "corrects" not in row:
        return Fact(statement=statement, question=row["asks"], value=first, wrong=wrong)
    correction = row["corrects"].format(v=second, old=first)
    return Fact(statement=statement, question=row["asks"], value=second, correction=correction, old=first)
