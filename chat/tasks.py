"""Celery tasks of the chat: thin, an id in, one service called."""

import uuid

from celery import shared_task

from chat import services


@shared_task(name="chat.prepare")
def prepare(generation_id: str) -> None:
    """Retrieve and render a turn whose web process went away before it could."""
    services.prepare_turn(generation_id=uuid.UUID(generation_id))
