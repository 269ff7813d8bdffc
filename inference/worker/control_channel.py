"""The worker's subscription in Redis: cancels that need not wait for the heartbeat, and commands for the GPU."""

import time
from collections.abc import Callable
from uuid import UUID

from redis.client import PubSub
from redis.exceptions import RedisError

from inference.dispatch import Dispatcher
from inference.runtime.redis_client import CONTROL_CHANNEL, sync_client
from inference.worker.gpu_commands import GPU_COMMAND_CHANNEL, execute

LISTEN_SECS = 0.5
REPLY_TIMEOUT_SECS = 5.0
# The sender of a command waits for a report that shows its effect.
FREQUENT_REPORTS_SECS = 30.0


class ControlChannel:
    """``report`` is called after each look at the channels for some time after a command."""

    def __init__(self, dispatcher: Dispatcher, report: Callable[[], object]) -> None:
        self.n_gpu_commands = 0
        self._dispatcher = dispatcher
        self._report = report
        self._report_until = 0.0
        self._pubsub: PubSub | None = None

    @property
    def is_subscribed(self) -> bool:
        return self._pubsub is not None

    def listen_once(self) -> None:
        """Wait LISTEN_SECS at most for one message and act on it. Raises RedisError, msgspec.DecodeError."""
        try:
            if self._pubsub is None:
                pubsub = sync_client(reply_timeout_secs=REPLY_TIMEOUT_SECS).pubsub(ignore_subscribe_messages=True)
                pubsub.subscribe(CONTROL_CHANNEL, GPU_COMMAND_CHANNEL)
                self._pubsub = pubsub
            message = self._pubsub.get_message(timeout=LISTEN_SECS)
        except RedisError:
            self._pubsub = None
            time.sleep(LISTEN_SECS)  # the repeating thread has no pause of its own
            raise
        if message is not None and message["channel"] == GPU_COMMAND_CHANNEL.encode():
            self.n_gpu_commands += 1
            self._report_until = time.monotonic() + FREQUENT_REPORTS_SECS
            execute(self._dispatcher, message["data"])
        elif message is not None:
            self._dispatcher.cancel(UUID(message["data"].decode()))
        if time.monotonic() < self._report_until:
            self._report()
