"""Celery tasks of the chat: each takes an id and calls one service."""

import uuid

from celery import shared_task

from chat.services import turns
from chat.summarization import long_input, rolling, titles
from inference.queue import generations


@shared_task(name="chat.prepare")
def prepare(generation_id: str) -> None:
    """Prepare a turn whose web process ended before it did."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        turns.prepare_turn(generation_id=uuid.UUID(generation_id))


@shared_task(name=rolling.AFTER_ANSWER_TASK)
def after_answer(generation_id: str) -> None:
    """Start the conversation's summary if this answer made one due."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        rolling.after_answer(uuid.UUID(generation_id))


@shared_task(name=rolling.AFTER_PIECE_TASK)
def after_piece(generation_id: str) -> None:
    """Continue the summary whose piece this generation read."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        rolling.after_piece(uuid.UUID(generation_id))


@shared_task(name=titles.AFTER_TITLE_TASK)
def after_title(generation_id: str) -> None:
    """Give the conversation the title that this generation made."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        titles.after_title(uuid.UUID(generation_id))


@shared_task(name=long_input.AFTER_PART_TASK)
def after_part(generation_id: str) -> None:
    """Continue the turn of whose message this generation read a part."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        turns.continue_long_input(generation_id=uuid.UUID(generation_id))
