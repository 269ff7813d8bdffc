"""A large database for `bench/admin.py`: conversations of a year with answers, retrievals and hand-overs."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from django.db import connection, models
from django.utils import timezone
from tqdm import tqdm

from chat.models import Conversation, Message, Retrieval
from inference.models import Generation, HandOver

PER_CONVERSATION = 10  # messages
CONVERSATIONS_AT_ONCE = 500
ROWS_AT_ONCE = 2_000
DAYS = 365
N_HAND_OVERS = 2_000
WORDS = "weather kitchen deadline printer holiday garden oven budget meeting train music river cheese".split()
QUESTION_WORDS = 30
RARE_SHARE = 1e-4
TEXTS_OF_A_LENGTH = 1_000  # making a text for each row takes longer than storing it
RARE_WORD, MISSING_WORD = "quokka", "xylophonist"  # in one question of ten thousand; in none
TIMINGS = {"queue": 12.0, "load": 5.0, "prefill": 300.0, "first_token": 450.0, "decode": 2600.0}
OUTCOMES = {"complete": 0.94, "interrupted": 0.04, "failed": 0.02}
_POOLS: dict[int, list[str]] = {}


def fill(n_messages: int, owners: Sequence[str]) -> None:
    """Store so many messages, most of them of the last weeks."""
    chooser = random.Random(1)
    now = timezone.now()
    n_left = n_messages // PER_CONVERSATION
    with tqdm(total=n_left * PER_CONVERSATION, unit=" messages", disable=None) as bar, _own_times():
        while n_left:
            n = min(CONVERSATIONS_AT_ONCE, n_left)
            _store(n, owners, now, chooser)
            bar.update(n * PER_CONVERSATION)
            n_left -= n
    HandOver.objects.bulk_create(_hand_over(now, chooser) for _ in range(N_HAND_OVERS))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@contextmanager
def _own_times() -> Iterator[None]:
    """Keep the times that the rows have, which the columns set otherwise."""
    with ExitStack() as stack:
        for model in (Conversation, Message, Generation, Retrieval):
            for field in model._meta.get_fields():
                if isinstance(field, models.DateTimeField):
                    stack.enter_context(patch.multiple(field, auto_now=False, auto_now_add=False))
        yield


def _store(n: int, owners: Sequence[str], now: datetime, chooser: random.Random) -> None:
    rows: dict[type[models.Model], list[Any]] = {Conversation: [], Generation: [], Message: [], Retrieval: []}
    for _ in range(n):
        at = now - timedelta(days=DAYS * chooser.random() ** 3, hours=1)
        chat = Conversation(owner=chooser.choice(owners), title=_text(chooser, 5), created_at=at, updated_at=at)
        rows[Conversation].append(chat)
        for position in range(0, PER_CONVERSATION, 2):
            _add_turn(rows, chat, position, at + timedelta(seconds=30 * position), chooser)
    for model, made in rows.items():
        model._default_manager.bulk_create(made, batch_size=ROWS_AT_ONCE)


def _add_turn(
    rows: dict[type[models.Model], list[Any]], chat: Conversation, position: int, at: datetime, chooser: random.Random
) -> None:
    question = _text(chooser, QUESTION_WORDS)
    generation = _generation(chat.owner, at, chooser)
    common = {"conversation": chat, "created_at": at}
    answer = Message(position=position + 1, role="assistant", generation=generation, **common)
    rows[Message] += [Message(position=position, role="user", content=question, **common), answer]
    rows[Generation].append(generation)
    if chooser.random() < 0.3:
        rows[Retrieval].append(_retrieval(answer, question, at, chooser))


def _generation(owner: str, at: datetime, chooser: random.Random) -> Generation:
    status = chooser.choices(list(OUTCOMES), list(OUTCOMES.values()))[0]
    n_out = chooser.randint(20, 300)
    devices = [{"device": "cpu", "tokens": n_out // 2}, {"device": "gpu", "tokens": n_out - n_out // 2}]
    return Generation(
        owner=owner,
        status=status,
        finish_reason="stop" if status == "complete" else "",
        error_code="runner_crashed" if status == "failed" else "",
        text=_text(chooser, 120),
        output=bytes(4 * n_out),
        text_ends=bytes(4 * n_out),
        n_prompt_tokens=chooser.randint(200, 4000),
        n_cached_tokens=150,
        n_completion_tokens=n_out,
        model_name="fake-it",
        timings=TIMINGS,
        devices=devices[: chooser.choice((1, 1, 2))],
        labels=[1] if chooser.random() < 0.2 else [],
        created_at=at,
        queued_at=at,
        started_at=at,
        finished_at=at + timedelta(seconds=4),
    )


def _retrieval(answer: Message, question: str, at: datetime, chooser: random.Random) -> Retrieval:
    source = {"label": "1", "kind": "memory", "title": "Note", "speaker": "", "text": _text(chooser, 40), "doc_id": "1"}
    sources = [source, source | {"label": "2", "doc_id": "2"}] if chooser.random() < 0.8 else []
    return Retrieval(
        message=answer, query=question, sources=sources, hits=sources, n_hits=len(sources), latency_ms=40, created_at=at
    )


def _hand_over(now: datetime, chooser: random.Random) -> HandOver:
    return HandOver(
        started_at=now - timedelta(days=DAYS * chooser.random()),
        device_from="cpu",
        device_to="gpu",
        waited_ms=300,
        loaded_ms=900,
        held_secs=chooser.randint(5, 300),
        yield_ms=200,
        ended_because="idle",
    )


def _text(chooser: random.Random, n_words: int) -> str:
    pool = _POOLS.setdefault(n_words, [])
    if len(pool) < TEXTS_OF_A_LENGTH:
        pool.append(" ".join(chooser.choices(WORDS, k=n_words)))
    text = chooser.choice(pool)
    return f"{text} {RARE_WORD}" if n_words == QUESTION_WORDS and chooser.random() < RARE_SHARE else text
