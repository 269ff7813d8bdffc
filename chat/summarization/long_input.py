"""One message longer than the context: read in parts, each noted down by a generation of its own; the notes are joined,
and read in parts again while they are too long.

Everything is in the rows: a part's generation has a key made of its turn, level and number, so that whoever comes (the
web process, a part's end, the sweep) finds what is done and asks for what is not. Doing it twice is harmless.
"""

import logging
import uuid
from collections.abc import Sequence

from chat.errors import ContextOverflow
from chat.models import Message
from chat.prompting.builder import PromptBuilder, sequence_params
from chat.prompting.history_notes import condensed_message
from chat.prompting.text_splitter import beginning, pieces
from chat.summarization.summarizer import Summarizer
from inference.enums import StreamState
from inference.errors import KeyTaken, StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.queue import generations
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log
from inference.token_stream.entries import StatusEntry

log = logging.getLogger(__name__)

AFTER_PART_TASK = "chat.after_part"
# Of the context: what the notes of all parts may take together, and the message's own beginning and end beside them.
NOTES_SHARE = 0.25
EDGE_SHARE = 1 / 16
MAX_PARTS = 200


def is_too_long(builder: PromptBuilder, text: str) -> bool:
    """Whether the message would not even fit alone."""
    return builder.n_tokens_alone(text) > builder.budget.hard_limit


def placeholder(builder: PromptBuilder, text: str) -> str:
    """Something as long as the notes will be at most, to see whether the rest of the turn fits. Raises
    ContextOverflow for what is too long to be read in parts."""
    n_parts = len(Summarizer(builder.format, builder.budget).parts(text))
    if n_parts > MAX_PARTS:
        raise ContextOverflow(prompt_tokens=builder.n_tokens_alone(text), context_size=builder.budget.context_size)
    return beginning(text, int(builder.budget.context_size * (NOTES_SHARE + 2 * EDGE_SHARE)), builder.count)


def read_in_parts(generation: Generation, question: Message, builder: PromptBuilder) -> bool:
    """True when the message's notes are there; else what is missing has been asked for."""
    if question.condensed:
        return True
    limit = int(builder.budget.context_size * NOTES_SHARE)
    summarizer = Summarizer(builder.format, builder.budget)
    text, level = question.content, 0
    while True:
        parts = summarizer.parts(text)
        notes = _notes(generation, summarizer, parts, level)
        if notes is None:
            return False
        text, level = "\n\n".join(notes), level + 1
        # A single part is not made shorter by being read again.
        if builder.count(text) <= limit or len(parts) == 1:
            break
    edge = int(builder.budget.context_size * EDGE_SHARE)
    tail = pieces(question.content[::-1], edge, builder.count)[0][::-1]
    question.condensed = condensed_message(
        beginning(question.content, edge, builder.count), beginning(text, limit, builder.count), tail
    )
    Message.objects.filter(pk=question.pk).update(condensed=question.condensed)
    return True


def after_part(generation_id: uuid.UUID) -> uuid.UUID | None:
    """The turn to be prepared again because one of its parts has been read."""
    part = Generation.objects.filter(pk=generation_id).first()
    if part is None or not generations.claim_follow_up(generation_id=generation_id):
        return None
    return uuid.UUID(part.details["part_of"])


def _notes(generation: Generation, summarizer: Summarizer, parts: Sequence[str], level: int) -> list[str] | None:
    """The notes of all parts of one level; None while some are missing. Raises PartFailed."""
    keys = [f"part:{generation.pk}:{level}:{number}" for number in range(len(parts))]
    rows = {row.idempotency_key: row for row in Generation.objects.filter(idempotency_key__in=keys)}
    failed = next((row for row in rows.values() if row.is_ended and row.status != Status.COMPLETE), None)
    if failed:
        raise MessagePartFailed(f"a part of the message could not be read: {failed.error_code or failed.status}")
    for key, part in zip(keys, parts, strict=True):
        if key not in rows:
            _ask(generation, summarizer, part, key)
    done = [rows[key].text.strip() for key in keys if key in rows and rows[key].is_ended]
    if len(done) == len(parts):
        return done
    _tell(generation, len(done) / len(parts), level)
    return None


class MessagePartFailed(Exception):
    """One of the parts has no notes, so that the answer would rest on a message with a hole in it."""


def _ask(generation: Generation, summarizer: Summarizer, part: str, key: str) -> None:
    prompt_ids = summarizer.prompt(part)
    try:
        generations.create(
            owner=generation.owner,
            params=sequence_params(
                summarizer.options,
                summarizer.format,
                n_prompt=len(prompt_ids),
                context_size=summarizer.budget.context_size,
            ),
            priority=Priority(generation.priority),  # somebody waits for it
            prompt_ids=prompt_ids,
            follow_up_task=AFTER_PART_TASK,
            timeout_secs=generation.timeout_secs,
            details={"part_of": str(generation.pk)},
            ephemeral=True,
            idempotency_key=key,
            capped=False,
        )
    except KeyTaken:
        log.debug("generation %s: somebody else asked for %s", generation.pk, key)


def _tell(generation: Generation, progress: float, level: int) -> None:
    """A status for the readers; a courtesy, which Redis may refuse."""
    waiting = StatusEntry(
        index=0,
        state=StreamState.SUMMARIZING,
        progress=round(progress, 3),
        reason="the message is longer than the context and is read in parts" if level == 0 else "notes are joined",
    )
    try:
        # Epoch 0: before any claim, so that nothing of a worker's can be overwritten.
        redis_log.append(shared_client(), [redis_log.Append(generation.pk, 0, [waiting])])
    except StoreUnavailable as error:
        log.warning("generation %s: its progress is not told: %s", generation.pk, error)
