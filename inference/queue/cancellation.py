"""Telling the worker at once what it would otherwise read from the row at its next heartbeat."""

import logging
from uuid import UUID

from redis.exceptions import RedisError

from inference.runtime.redis_client import CONTROL_CHANNEL, shared_client

log = logging.getLogger(__name__)


def publish_cancel(generation_id: UUID) -> None:
    try:
        shared_client().publish(CONTROL_CHANNEL, str(generation_id))
    except RedisError as error:
        log.warning("generation %s: its worker learns of the cancel at its next heartbeat (%s)", generation_id, error)
