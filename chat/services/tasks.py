"""Celery tasks of the chat: thin, an id in, one service called."""

import uuid

from celery import shared_task

from chat.services import turns
from chat.summarization import long_input, rolling
from inference.queue import generations


@shared_task(name="chat.prepare")
def prepare(generation_id: str) -> None:
    """Retrieve and render a turn whose web process went away before it could."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        turns.prepare_turn(generation_id=uuid.UUID(generation_id))


@shared_task(name=rolling.AFTER_ANSWER_TASK)
def after_answer(generation_id: str) -> None:
    """Begin the conversation's summary if this answer has made one due."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        rolling.after_answer(uuid.UUID(generation_id))


@shared_task(name=rolling.AFTER_PIECE_TASK)
def after_piece(generation_id: str) -> None:
    """Go on with the summary whose piece this generation has read."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        rolling.after_piece(uuid.UUID(generation_id))


@shared_task(name=long_input.AFTER_PART_TASK)
def after_part(generation_id: str) -> None:
    """Go on with the turn whose message this generation has read a part of."""
    with generations.log_lines_of(uuid.UUID(generation_id)):
        turns.continue_long_input(generation_id=uuid.UUID(generation_id))
