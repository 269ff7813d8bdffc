"""Wake-up messages to Celery: "a row is ready". One may be lost or arrive twice; the rows are authoritative."""

import logging
from uuid import UUID

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

GENERATE_TASK = "inference.generate"


def notify(generation_id: UUID, task: str = GENERATE_TASK) -> bool:
    """Send ``task``; False when the broker is unavailable, in which case the reaper sends it later."""
    try:
        current_app.send_task(task, args=[str(generation_id)], retry=False)
    except (BrokerError, RedisError, OSError) as error:
        log.warning(
            "wake-up message not sent, the reaper repeats it generation=%s task=%s error=%s", generation_id, task, error
        )
        return False
    return True


def notify_on_commit(generation_id: UUID, task: str = GENERATE_TASK) -> None:
    """Send ``task`` once the current transaction is durable, so that the worker finds the row."""
    # Robust: an accepted request stays accepted after any error of the broker's client; Django logs it. A lambda, since
    # Django logs the callback's name, which a partial lacks.
    transaction.on_commit(lambda: notify(generation_id, task), robust=True)
