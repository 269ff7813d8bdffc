"""Preemption of the GPU: residents, first of all the transcription service, pause before a grant and resume after it.

Residents use the GPU while no lease is granted. Both generations of channels are served. The residents are counted by
their subscriptions: tenants that only request the GPU subscribe by pattern, which Redis does not count.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.pause_replies import PauseReplies
from inference.gpu.protocol import channels

SUBSCRIBE_SECS = 1.0


class TenantReplies:
    """Replies of tenants since this was made, over a subscription of its own."""

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
        """Yield (channel, message) for each reply that has arrived; does not wait."""
        while (raw := self._pubsub.get_message(timeout=0.0)) is not None:
            message = channels.decode(raw["data"]) if raw["type"] in ("message", "pmessage") else None
            if message is not None:
                yield raw["channel"].decode(), message

    def close(self) -> None:
        self._pubsub.close()


@dataclass(frozen=True)
class PauseOutcome:
    """``refusal`` None: the GPU is free."""

    refusal: str | None = None


class ResidentPause:
    """A pause of the residents: call ``begin`` once, then ``step`` until it returns an outcome."""

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        replies: TenantReplies,
        config: CoordinatorConfig,
        *,
        session_id: str,
        requester: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = client
        self._replies = replies
        self._config = config
        self._session_id = session_id
        self._requester = requester
        self._clock = clock
        self._sent_at: datetime | None = None  # None: no resident was found yet
        self._began = clock()
        self._n_old = self._n_new = 0
        self._counted = PauseReplies(session_id)

    def begin(self) -> None:
        """Count the residents and send the pause. Earlier replies do not count as answers."""
        self._began = self._clock()
        self._send_pause()

    def step(self) -> PauseOutcome | None:
        for channel, message in self._replies.new():
            if self._sent_at is not None and channels.is_fresh(message, self._sent_at):
                self._counted.add(channel, message)
        waited_secs = self._clock() - self._began
        if self._sent_at is None:
            return self._check_absence(waited_secs)
        if self._counted.refusal is not None:
            return PauseOutcome(self._counted.refusal)
        if self._counted.n_old_freed >= self._n_old and self._counted.n_new_freed >= self._n_new:
            return PauseOutcome()
        is_acknowledged = self._counted.n_old_paused >= self._n_old and self._counted.n_new_paused >= self._n_new
        if not is_acknowledged and waited_secs >= self._config.pause_secs:
            return PauseOutcome(f"the transcription service did not answer within {self._config.pause_secs:g} s")
        if waited_secs >= self._config.freed_secs:
            return PauseOutcome(f"the transcription service did not free the GPU within {self._config.freed_secs:g} s")
        return None

    def _send_pause(self) -> None:
        self._n_old, self._n_new = count_residents(self._redis)
        if self._n_old + self._n_new == 0:
            return
        note_residents(self._redis, self._config)
        self._sent_at = datetime.now(UTC)
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

    def _check_absence(self, waited_secs: float) -> PauseOutcome | None:
        """Without residents the GPU is free, unless one was here a moment ago and may be reconnecting."""
        if not self._redis.exists(channels.RESIDENTS_SEEN):
            return PauseOutcome()
        if waited_secs >= self._config.pause_secs:
            return PauseOutcome("the transcription service was here a moment ago and cannot be reached")
        self._send_pause()
        return None


def count_residents(client: "redis.Redis[bytes]") -> tuple[int, int]:
    """Return the number of residents on the old channels, and on the new ones."""
    (_, n_old), (_, n_new) = client.pubsub_numsub(channels.PAUSE, channels.COMMAND)
    return n_old, n_new


def has_residents(client: "redis.Redis[bytes]") -> bool:
    """Return whether there are residents, or were a moment ago."""
    return sum(count_residents(client)) > 0 or bool(client.exists(channels.RESIDENTS_SEEN))


def note_residents(client: "redis.Redis[bytes]", config: CoordinatorConfig) -> None:
    """Note that there are residents now."""
    client.set(channels.RESIDENTS_SEEN, sum(count_residents(client)), px=int(config.resident_secs * 1000))


def resume(client: "redis.Redis[bytes]", *, session_id: str, requester: str) -> None:
    """Notify the residents that they may use the GPU. A repeated message has no effect."""
    pipe = client.pipeline(transaction=False)
    pipe.publish(channels.RESUME, channels.encode({"task_id": session_id}))
    pipe.publish(channels.COMMAND, channels.command("resume", session_id=session_id, requester=requester))
    pipe.execute()


def recall(client: "redis.Redis[bytes]", *, session_id: str, requester: str, timeout_ms: int) -> None:
    """Recall the lease of ``session_id`` for ``requester``."""
    message = channels.command("pause", session_id=session_id, requester=requester, timeout_ms=timeout_ms)
    client.publish(channels.COMMAND, message)
