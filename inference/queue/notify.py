"""Ringing: telling Celery that there is work. A ring may be lost or come twice; the rows are the truth."""

import logging
from uuid import UUID

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

GENERATE_TASK = "inference.generate"


def notify(generation_id: UUID, task: str = GENERATE_TASK) -> bool:
    """Send ``task``; False when the broker is away, which the sweep makes up for."""
    try:
        current_app.send_task(task, args=[str(generation_id)], retry=False)
    except (BrokerError, RedisError, OSError) as error:
        log.warning("generation %s: %s was not rung, the sweep will (%s)", generation_id, task, error)
        return False
    return True


def notify_on_commit(generation_id: UUID, task: str = GENERATE_TASK) -> None:
    """Ring once the current transaction is durable, so that the worker finds the row."""
    # Robust: what is accepted is accepted, whatever a broker's client may raise; Django logs it, and the sweep rings.
    # (By its name, which a partial has not.)
    transaction.on_commit(lambda: notify(generation_id, task), robust=True)
