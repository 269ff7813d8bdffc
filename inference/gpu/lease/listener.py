"""Redis side of a recall: pause commands for our session, and the message that the GPU is free. Knows no lease."""

import logging
import time
from collections.abc import Callable, Mapping

import redis
from redis.client import PubSub

from inference.gpu.protocol import channels
from inference.runtime.repeating_thread import RepeatingThread

log = logging.getLogger(__name__)

LISTEN_SECS = 0.5


class CommandListener:
    """Calls ``on_pause(session_id, requester)`` for every pause command that names a session."""

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
                pubsub.psubscribe(channels.ONLY_COMMANDS)
                self._pubsub = pubsub
            message = self._pubsub.get_message(timeout=LISTEN_SECS)
        except redis.RedisError:
            self._pubsub = None
            time.sleep(LISTEN_SECS)  # the repeating thread has no interval
            raise
        command = channels.decode(message["data"]) if message is not None else None
        if command is not None and command.get("command") == "pause" and isinstance(command.get("session_id"), str):
            self._on_pause(command["session_id"], str(command.get("requester") or "another program"))


def publish_freed(client: "redis.Redis[bytes]", session_id: str, result: Mapping[str, object]) -> None:
    """Publish that the memory of the GPU is free. A tenant that misses the message finds it in /gpu/state."""
    try:
        message = channels.ack("paused", service=channels.OUR_SERVICE, session_id=session_id, metadata=result)
        client.publish(channels.ack_channel(channels.OUR_SERVICE), message)
    except redis.RedisError as error:
        log.warning("release not published session=%s error=%s", session_id, error)
