"""Long input: a message longer than the context window is read in parts, and the model gets notes in its place.

A generation takes notes of each part; the notes are joined, and read in parts again while they are too long. The key of
a part's generation names turn, level and number, so that any process (web, task, reaper) finds the parts that are read
and queues the next ones, a few at a time: other questions of the same caller do not wait behind all of them. Repeating
a step changes nothing. A part ends with its turn (``inference/queue/parts``). A message with a question about a detail
needs no notes: the parts that have its words stand there themselves (``chat/recall/excerpts``).
"""

import logging
import uuid
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from chat.models import Message
from chat.prompting.builder import PromptBuilder
from chat.prompting.history_notes import condensed_message
from chat.prompting.sequence_params import sequence_params
from chat.prompting.text_splitter import beginning, iter_pieces
from chat.summarization.summarizer import Summarizer
from inference.enums import StreamState
from inference.errors import KeyTaken, StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.queue import generations
from inference.queue.parts import PART_OF
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log
from inference.token_stream.entries import StatusEntry

log = logging.getLogger(__name__)

AFTER_PART_TASK = "chat.after_part"
# Of the context window: the notes of all parts together, and the message's own beginning and end beside them.
NOTES_SHARE = 0.25
EDGE_SHARE = 1 / 16
MAX_PARTS = 200
# Name in the details of the turn: for each level start and end of its parts.
BORDERS = "part_borders"


class MessagePartFailed(Exception):
    """A part of the message has no notes, so that the answer would rest on an incomplete message."""


def placeholder(builder: PromptBuilder, text: str) -> str:
    """Return a text of the greatest length that the notes can have, to check that the rest of the turn fits.

    Raises ContextOverflow for a message with too many parts.
    """
    if Summarizer.of(builder.budget).has_more_parts(text, MAX_PARTS):
        raise builder.budget.overflow(builder.count(text))
    return beginning(text, int(builder.budget.context_size * (NOTES_SHARE + 2 * EDGE_SHARE)), builder.count)


def read_in_parts(generation: Generation, question: Message, builder: PromptBuilder) -> bool:
    """True when the question has its notes; else the missing parts are queued."""
    if question.condensed:
        return True
    # Late: a command begins an answer sooner without the search, which only such a message needs.
    from chat.recall.excerpts import excerpts  # noqa: PLC0415

    limit = int(builder.budget.context_size * NOTES_SHARE)
    if parts_needed := excerpts(question.content, limit=limit, count=builder.count, now=timezone.localtime()):
        _condense(question, builder, parts_needed, is_excerpt=True)
        return True
    summarizer = Summarizer.of(builder.budget)
    text, level = question.content, 0
    while True:
        parts = _parts(generation, summarizer, text, level)
        notes = _notes(generation, summarizer, parts, level)
        if notes is None:
            return False
        text, level = "\n\n".join(notes), level + 1
        # A single part does not get shorter by being read again.
        if builder.count(text) <= limit or len(parts) == 1:
            break
    _condense(question, builder, beginning(text, limit, builder.count))
    return True


def _condense(question: Message, builder: PromptBuilder, middle: str, *, is_excerpt: bool = False) -> None:
    """Store what the model reads in place of the message: its beginning, ``middle`` and its end."""
    edge = int(builder.budget.context_size * EDGE_SHARE)
    tail = next(iter_pieces(question.content[::-1], edge, builder.count))[::-1]
    first = beginning(question.content, edge, builder.count)
    question.condensed = condensed_message(first, middle, tail, is_excerpt=is_excerpt)
    Message.objects.filter(pk=question.pk).update(condensed=question.condensed)


def after_part(generation_id: uuid.UUID) -> uuid.UUID | None:
    """Return the turn to be prepared again because one of its parts was read."""
    part = Generation.objects.filter(pk=generation_id).first()
    if part is None or not generations.claim_follow_up(generation_id=generation_id):
        return None
    return uuid.UUID(part.details[PART_OF])


def _parts(generation: Generation, summarizer: Summarizer, text: str, level: int) -> list[str]:
    """Split the text of a level; the borders are kept in the row, since each end of a part comes back here."""
    levels: list[list[tuple[int, int]]] = generation.details.setdefault(BORDERS, [])
    if level == len(levels):
        levels.append(summarizer.parts(text))
        rows = Generation.objects.filter(pk=generation.pk, status=Status.PREPARING)
        rows.update(details=generation.details)
    return [text[start:end].rstrip() for start, end in levels[level]]


def _notes(generation: Generation, summarizer: Summarizer, parts: Sequence[str], level: int) -> list[str] | None:
    """Return the notes of all parts of one level; None while some are missing. Raises MessagePartFailed."""
    keys = [f"part:{generation.pk}:{level}:{number}" for number in range(len(parts))]
    rows = {row.idempotency_key: row for row in Generation.objects.filter(idempotency_key__in=keys)}
    failed = next((row for row in rows.values() if row.is_ended and row.status != Status.COMPLETE), None)
    if failed:
        raise MessagePartFailed(f"a part of the message could not be read: {failed.error_code or failed.status}")
    notes = [rows[key].text.strip() for key in keys if key in rows and rows[key].is_ended]
    if len(notes) == len(parts):
        return notes
    # Like a long prompt, which leaves half of each step to shorter ones: other questions find free places and cells.
    n_free = summarizer.parts_at_once - (len(rows) - len(notes))
    missing = [(key, part) for key, part in zip(keys, parts, strict=True) if key not in rows]
    for key, part in missing[: max(0, n_free)]:
        _create_part(generation, summarizer, part, key)
    _report_progress(generation, len(notes) / len(parts), level)
    return None


def _create_part(generation: Generation, summarizer: Summarizer, part: str, key: str) -> None:
    prompt_ids = summarizer.prompt(part)
    try:
        with transaction.atomic():
            # Locked: a turn that is cancelled or deleted at the same time gets no part any more.
            waiting = Generation.objects.select_for_update().filter(pk=generation.pk, status=Status.PREPARING)
            if waiting.first() is None:
                return
            generations.create(
                owner=generation.owner,
                params=sequence_params(
                    summarizer.options,
                    summarizer.format,
                    n_prompt=len(prompt_ids),
                    context_size=summarizer.budget.context_size,
                    n_shared=summarizer.n_shared(prompt_ids),
                ),
                priority=Priority(generation.priority),  # the caller waits for it
                prompt_ids=prompt_ids,
                follow_up_task=AFTER_PART_TASK,
                timeout_secs=generation.timeout_secs,
                details={PART_OF: str(generation.pk)},
                ephemeral=True,
                cache_tags=generation.params.get("cache_tags", ()),
                idempotency_key=key,
                capped=False,
            )
    except KeyTaken:
        log.debug("part already queued by another process generation=%s part=%s", generation.pk, key)


def _report_progress(generation: Generation, progress: float, level: int) -> None:
    """Append a status for the readers; it is optional, so that a failing Redis is only logged."""
    status = StatusEntry(
        index=0,
        state=StreamState.SUMMARIZING,
        progress=round(progress, 3),
        reason="the message is longer than the context and is read in parts" if level == 0 else "notes are joined",
    )
    try:
        # Epoch 0 comes before any claim: no entry of a worker can be overwritten.
        redis_log.append(shared_client(), [redis_log.Append(generation.pk, 0, [status])])
    except StoreUnavailable as error:
        log.warning("progress not reported generation=%s error=%s", generation.pk, error)
