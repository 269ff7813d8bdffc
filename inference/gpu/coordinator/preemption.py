"""Emptying the card: residents are who uses it while nobody asks, first of all the transcription service.

Speaks both generations of channels. Which residents there are is told by who is subscribed: callers who only ask for
the card listen by pattern, which Redis does not count.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.protocol import channels

SEEN = "gpu:resident"
SUBSCRIBE_SECS = 1.0


class TenantReplies:
    """What tenants say, from the moment this exists: a subscription of its own."""

    def __init__(self, client: "redis.Redis[bytes]") -> None:
        self._pubsub = client.pubsub()
        self._pubsub.subscribe(channels.PAUSED, channels.FREED)
        self._pubsub.psubscribe(f"{channels.ACKS}*")
        confirmed, deadline = 0, time.monotonic() + SUBSCRIBE_SECS
        while confirmed < 3:
            if time.monotonic() > deadline:
                raise redis.TimeoutError(f"Redis did not confirm a subscription within {SUBSCRIBE_SECS:g} s")
            message = self._pubsub.get_message(timeout=0.1)
            confirmed += message is not None and message["type"] in ("subscribe", "psubscribe")

    def new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(channel, message) of everything that has come; does not wait."""
        while (raw := self._pubsub.get_message(timeout=0.0)) is not None:
            message = channels.decode(raw["data"]) if raw["type"] in ("message", "pmessage") else None
            if message is not None:
                yield raw["channel"].decode(), message

    def close(self) -> None:
        self._pubsub.close()


@dataclass(frozen=True)
class PauseOutcome:
    """``refusal`` None: the card is free."""

    refusal: str | None = None


class ResidentPause:
    """Asking the residents once to leave. ``begin`` once, then ``step`` until it does not return None."""

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        answers: TenantReplies,
        config: CoordinatorConfig,
        *,
        session_id: str,
        requester: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = client
        self._answers = answers
        self._config = config
        self._session_id = session_id
        self._requester = requester
        self._clock = clock
        self._asked_at: datetime | None = None  # None: nobody was there to ask yet
        self._began = clock()
        self._n_old = self._n_new = 0
        self._n_paused = self._n_freed = 0
        self._acked: set[str] = set()
        self._freed: set[str] = set()
        self._refusal: str | None = None

    def begin(self) -> None:
        """Count the residents and tell them. What they said before this is no answer to it."""
        self._began = self._clock()
        self._ask()

    def step(self) -> PauseOutcome | None:
        for channel, message in self._answers.new():
            if self._asked_at is not None and channels.is_fresh(message, self._asked_at):
                self._take(channel, message)
        waited_secs = self._clock() - self._began
        if self._asked_at is None:
            return self._nobody(waited_secs)
        if self._refusal is not None:
            return PauseOutcome(self._refusal)
        if self._n_freed >= self._n_old and len(self._freed) >= self._n_new:
            return PauseOutcome()
        has_word = self._n_paused >= self._n_old and len(self._acked) >= self._n_new
        if not has_word and waited_secs >= self._config.pause_secs:
            return PauseOutcome(f"the transcription service did not answer within {self._config.pause_secs:g} s")
        if waited_secs >= self._config.freed_secs:
            return PauseOutcome(f"the transcription service did not free the card within {self._config.freed_secs:g} s")
        return None

    def _ask(self) -> None:
        self._n_old, self._n_new = count(self._redis)
        if self._n_old + self._n_new == 0:
            return
        remember(self._redis, self._config)
        self._asked_at = datetime.now(UTC)
        old = {"reason": f"{self._requester} wants the GPU", "task_id": self._session_id}
        new = channels.command(
            "pause",
            session_id=self._session_id,
            requester=self._requester,
            timeout_ms=round(self._config.pause_secs * 1000),
        )
        pipe = self._redis.pipeline(transaction=False)
        pipe.publish(channels.PAUSE, channels.encode(old))
        pipe.publish(channels.COMMAND, new)
        pipe.execute()

    def _nobody(self, waited_secs: float) -> PauseOutcome | None:
        """Free at once when nobody uses the card through us; but one that was here just now may be connecting again."""
        if not self._redis.exists(SEEN):
            return PauseOutcome()
        if waited_secs >= self._config.pause_secs:
            return PauseOutcome("the transcription service was here a moment ago and cannot be reached")
        self._ask()
        return None

    def _take(self, channel: str, message: dict[str, Any]) -> None:
        if channel == channels.PAUSED:
            if message.get("status", "paused") != "paused":
                self._refusal = "the transcription service refused to pause"
            self._n_paused += 1
        elif channel == channels.FREED:
            # One that no word of leaving came before is the late end of an earlier pause.
            self._n_freed += self._n_freed < self._n_paused
        elif message.get("session_id") == self._session_id:
            self._take_ack(str(message.get("service")), message)

    def _take_ack(self, service: str, message: dict[str, Any]) -> None:
        if message.get("ack_type") == "error":
            self._refusal = f"{service} could not leave the card"
        elif message.get("ack_type") == "paused":
            self._acked.add(service)
            metadata = message.get("metadata")
            if not (isinstance(metadata, dict) and metadata.get("offloading")):
                self._freed.add(service)


def count(client: "redis.Redis[bytes]") -> tuple[int, int]:
    """How many residents listen on the old channels, and on the new ones."""
    (_, n_old), (_, n_new) = client.pubsub_numsub(channels.PAUSE, channels.COMMAND)
    return n_old, n_new


def remember(client: "redis.Redis[bytes]", config: CoordinatorConfig) -> None:
    """That residents are there now."""
    client.set(SEEN, 1, px=int(config.resident_secs * 1000))


def resume(client: "redis.Redis[bytes]", *, session_id: str, requester: str) -> None:
    """Tell the residents that the card is theirs again. Once too often does no harm."""
    pipe = client.pipeline(transaction=False)
    pipe.publish(channels.RESUME, channels.encode({"task_id": session_id}))
    pipe.publish(channels.COMMAND, channels.command("resume", session_id=session_id, requester=requester))
    pipe.execute()


def ask_holder(client: "redis.Redis[bytes]", *, session_id: str, requester: str, timeout_ms: int) -> None:
    """Tell whoever holds the card under ``session_id`` that ``requester`` wants it."""
    told = channels.command("pause", session_id=session_id, requester=requester, timeout_ms=timeout_ms)
    client.publish(channels.COMMAND, told)
