"""Cancel messages to the worker, which would otherwise read the row's flag at its next heartbeat."""

import logging
from uuid import UUID

from redis.exceptions import RedisError

from inference.runtime.redis_client import CONTROL_CHANNEL, shared_client

log = logging.getLogger(__name__)


def publish_cancel(generation_id: UUID) -> None:
    try:
        shared_client().publish(CONTROL_CHANNEL, str(generation_id))
    except RedisError as error:
        log.warning("cancel not sent, the next heartbeat reads it generation=%s error=%s", generation_id, error)
