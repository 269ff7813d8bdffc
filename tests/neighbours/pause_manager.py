"""The pause manager of a transcription service, written from its behaviour; it uses nothing of ours.

It acknowledges a pause at once, frees the GPU after a while, and loads its model again at a resume.
"""

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

from tests.neighbours.coordinator import Wire

PATIENCE_SECS = 10.0


class PauseManager:
    """``channel_sets``: "v1", "v2" or both. Its v2 listener acknowledges with ``offloading: true`` and reports the
    free memory with the session's id on the old channel ``vram_freed``, as the program of the stack does."""

    def __init__(
        self, wire: Wire, *, channel_sets: tuple[str, ...] = ("v1", "v2"), free_secs: float = 0.0, service: str = ""
    ) -> None:
        self.wire = wire
        self.free_secs = free_secs
        self.service = service or "transcription"
        self.is_deaf = False  # loses every message
        self.is_on_card = True
        self.n_freed = 0
        self._pubsub = wire.pubsub()
        names = ["transcription_pause", "transcription_resume"] if "v1" in channel_sets else []
        names += ["gpu:command"] if "v2" in channel_sets else []
        self._pubsub.subscribe(*names)
        for _ in names:
            assert self._pubsub.get_message(timeout=PATIENCE_SECS) is not None
        self._is_over = threading.Event()
        self._pause_id = ""
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

    def _run(self) -> None:
        while not self._is_over.is_set():
            raw = self._pubsub.get_message(timeout=0.02)
            if raw is None or raw["type"] != "message" or self.is_deaf:
                continue
            channel, message = raw["channel"].decode(), json.loads(raw["data"])
            if channel == "transcription_pause" or message.get("command") == "pause":
                self._pause(channel, message)
            else:
                self.is_on_card = True

    def _pause(self, channel: str, message: dict[str, Any]) -> None:
        is_new = channel == "gpu:command"
        session = message.get("session_id") or message.get("task_id")
        if is_new:
            fields = {"ack_type": "paused", "service": self.service, "session_id": session, "error": None}
            self._publish(f"gpu:ack:{self.service}", fields | {"metadata": {"offloading": True}})
        else:
            self._publish("transcription_paused", {"status": "paused", "offloading": True, "queued_chunks": 0})
        deadline = time.monotonic() + self.free_secs
        while time.monotonic() < deadline and not self._is_over.is_set():
            time.sleep(0.01)
        self.is_on_card = False
        self.n_freed += 1
        self._publish("vram_freed", {"status": "freed"} | ({"session_id": session} if is_new else {}))

    def _publish(self, channel: str, message: dict[str, Any]) -> None:
        self.wire.publish(channel, json.dumps(message | {"timestamp": datetime.now(UTC).isoformat()}))
