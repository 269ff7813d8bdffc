"""Hearing that somebody wants the card that we hold, and saying that it is free. Knows Redis channels and no lease."""

import logging
import time
from collections.abc import Callable, Mapping

import redis
from redis.client import PubSub

from inference.gpu.protocol import channels
from inference.runtime.repeating_thread import RepeatingThread

log = logging.getLogger(__name__)

# A pattern that matches one name. Redis does not count such listeners, and the coordinator counts those who use the
# card while nobody asks for it: we are not one of them.
ONLY_COMMANDS = channels.COMMAND[:-1] + f"[{channels.COMMAND[-1]}]"
LISTEN_SECS = 0.5


class CommandListener:
    """Calls ``on_pause(session_id, requester)`` for every pause that names a session, whoever's it is."""

    def __init__(self, client: "redis.Redis[bytes]", on_pause: Callable[[str, str], None]) -> None:
        self._redis = client
        self._on_pause = on_pause
        self._pubsub: PubSub | None = None
        self._loop = RepeatingThread("gpu commands", 0.0, self.listen_once)

    def begin(self) -> None:
        self._loop.begin()

    def end(self, timeout_secs: float) -> None:
        self._loop.end(timeout_secs)
        if self._pubsub is not None:
            self._pubsub.close()

    def listen_once(self) -> None:
        try:
            if self._pubsub is None:
                pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
                pubsub.psubscribe(ONLY_COMMANDS)
                self._pubsub = pubsub
            message = self._pubsub.get_message(timeout=LISTEN_SECS)
        except redis.RedisError:
            self._pubsub = None
            time.sleep(LISTEN_SECS)  # the loop around this one has no pause of its own
            raise
        told = channels.decode(message["data"]) if message is not None else None
        if told is not None and told.get("command") == "pause" and isinstance(told.get("session_id"), str):
            self._on_pause(told["session_id"], str(told.get("requester") or "another program"))


def publish_freed(client: "redis.Redis[bytes]", session_id: str, result: Mapping[str, object]) -> None:
    """The card is really free. One that cannot be told looks at /gpu/state, which says so as well."""
    try:
        told = channels.ack("paused", service=channels.US, session_id=session_id, metadata=result)
        client.publish(channels.ack_channel(channels.US), told)
    except redis.RedisError as error:
        log.warning("that the GPU is free could not be told: %s", error)
