"""A transcription service as others have it: speaks the channels itself and uses nothing of ours."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    Wire = redis.Redis[bytes]
else:  # not subscriptable when it runs
    Wire = redis.Redis

PATIENCE_SECS = 5.0


class Transcription:
    """``old``/``new``: the generations of the protocol that it listens to. ``answers`` False: it never replies.

    ``frees_after_secs`` None: it announces that it leaves, and keeps its memory.
    """

    def __init__(
        self,
        client: Wire,
        *,
        old: bool = True,
        new: bool = False,
        answers: bool = True,
        frees_after_secs: float | None = 0.0,
        error: str | None = None,
    ) -> None:
        self.client = client
        self.answers = answers
        self.frees_after_secs = frees_after_secs
        self.error = error
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._pubsub = client.pubsub()
        channels = ["transcription_pause", "transcription_resume"] if old else []
        channels += ["gpu:command"] if new else []
        self._pubsub.subscribe(*channels)
        for _ in channels:
            assert self._pubsub.get_message(timeout=PATIENCE_SECS) is not None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE_SECS)
        self._pubsub.close()

    def n_heard(self, word: str) -> int:
        """Return the number of pauses or resumes received, on both sets of channels."""
        return sum(word in channel or message.get("command") == word for channel, message in list(self.heard))

    def until_heard(self, word: str, n: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE_SECS
        while self.n_heard(word) < n:
            assert time.monotonic() < deadline, f"no {n} x {word} in {self.heard}"
            time.sleep(0.005)

    def say_old(self, channel: str, *, age_secs: float = 0.0) -> None:
        """A word of the first generation, written ``age_secs`` ago."""
        at = datetime.now(UTC) - timedelta(seconds=age_secs)
        status = {"transcription_paused": "paused", "vram_freed": "freed"}[channel]
        message = {"status": status, "offloading": True, "queued_chunks": 0, "timestamp": at.isoformat()}
        self.client.publish(channel, json.dumps(message))

    def _run(self) -> None:
        while not self._over.is_set():
            raw = self._pubsub.get_message(timeout=0.02)
            if raw is None or raw["type"] != "message":
                continue
            channel, message = raw["channel"].decode(), json.loads(raw["data"])
            self.heard.append((channel, message))
            if self.answers and (channel == "transcription_pause" or message.get("command") == "pause"):
                self._answer(channel, message)

    def _answer(self, channel: str, message: dict[str, Any]) -> None:
        if channel == "gpu:command":
            if self.frees_after_secs is not None:
                time.sleep(self.frees_after_secs)
                self._ack(message)
            return
        self.say_old("transcription_paused")
        if self.frees_after_secs is not None:
            time.sleep(self.frees_after_secs)
            self.say_old("vram_freed")

    def _ack(self, message: dict[str, Any]) -> None:
        ack = {
            "ack_type": "error" if self.error else "paused",
            "service": "transcription",
            "session_id": message["session_id"],
            "timestamp": datetime.now(UTC).isoformat(),
            "error": self.error,
            "metadata": {},
        }
        self.client.publish("gpu:ack:transcription", json.dumps(ack))
