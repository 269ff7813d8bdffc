"""The pause manager of a transcription service, written from its behaviour; it uses nothing of ours.

It acknowledges a pause at once, frees the GPU after a while, and loads its model again at a resume. Its start looks at
the published state; a message that is sent while its connection is down is lost to it.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import redis

from tests.neighbours.coordinator import Wire

PATIENCE_SECS = 10.0
RECONNECT_SECS = 0.1


class PauseManager:
    """``channel_sets``: "v1", "v2" or both. Its v2 listener acknowledges with ``offloading: true`` and reports the
    free memory with the session's id on the old channel ``vram_freed``, as the program of the stack does.

    ``on_move`` is called with True before the model is loaded, and with False once it is gone.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        channel_sets: tuple[str, ...] = ("v1", "v2"),
        free_secs: float = 0.0,
        service: str = "",
        on_move: Callable[[bool], object] = lambda is_on_card: None,
    ) -> None:
        self.wire = wire
        self.free_secs = free_secs
        self.service = service or "transcription"
        self.is_deaf = False  # loses every message
        self.n_freed = 0
        self._on_move = on_move
        self._names = ["transcription_pause", "transcription_resume"] if "v1" in channel_sets else []
        self._names += ["gpu:command"] if "v2" in channel_sets else []
        self._pubsub = self._subscribe()
        self.is_on_card = False
        self._move(is_on_card=wire.get("gpu_state") in (None, b"transcription"))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_SECS)
        self._pubsub.close()

    def wait_until(self, *, on_card: bool, within_secs: float = PATIENCE_SECS) -> float:
        """Wait for the model to be loaded, or gone; return the seconds that it took."""
        began = time.monotonic()
        while self.is_on_card is not on_card:
            assert time.monotonic() - began < within_secs, f"on_card is {self.is_on_card} after {within_secs} s"
            time.sleep(0.01)
        return time.monotonic() - began

    def _subscribe(self) -> "redis.client.PubSub":
        pubsub = self.wire.pubsub()
        pubsub.subscribe(*self._names)
        for _ in self._names:
            if pubsub.get_message(timeout=PATIENCE_SECS) is None:
                raise redis.ConnectionError("the subscription was not confirmed")
        return pubsub

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self._handle(self._pubsub.get_message(timeout=0.02))
            except redis.RedisError:
                self._reconnect()

    def _reconnect(self) -> None:
        self._pubsub.close()
        while not self._is_over.wait(RECONNECT_SECS):
            with suppress(redis.RedisError):
                self._pubsub = self._subscribe()
                return

    def _handle(self, raw: dict[str, Any] | None) -> None:
        if raw is None or raw["type"] != "message" or self.is_deaf:
            return
        channel, message = raw["channel"].decode(), json.loads(raw["data"])
        if channel == "transcription_pause" or message.get("command") == "pause":
            self._pause(channel, message)
        elif channel == "transcription_resume" or message.get("command") == "resume":
            self._move(is_on_card=True)
            if channel == "gpu:command":
                self._acknowledge("resumed", message.get("session_id"))

    def _pause(self, channel: str, message: dict[str, Any]) -> None:
        is_new = channel == "gpu:command"
        session = message.get("session_id") or message.get("task_id")
        if is_new:
            self._acknowledge("paused", session, offloading=True)
        else:
            self._publish("transcription_paused", {"status": "paused", "offloading": True, "queued_chunks": 0})
        if self.is_on_card:
            deadline = time.monotonic() + self.free_secs
            while time.monotonic() < deadline and not self._is_over.is_set():
                time.sleep(0.01)
            self._move(is_on_card=False)
        self.n_freed += 1
        self._publish("vram_freed", {"status": "freed"} | ({"session_id": session} if is_new else {}))

    def _move(self, *, is_on_card: bool) -> None:
        if is_on_card is not self.is_on_card:
            self._on_move(is_on_card)
            self.is_on_card = is_on_card

    def _acknowledge(self, ack_type: str, session: object, **metadata: object) -> None:
        fields = {"ack_type": ack_type, "service": self.service, "session_id": session, "error": None}
        self._publish(f"gpu:ack:{self.service}", fields | {"metadata": metadata})

    def _publish(self, channel: str, message: dict[str, Any]) -> None:
        self.wire.publish(channel, json.dumps(message | {"timestamp": datetime.now(UTC).isoformat()}))
