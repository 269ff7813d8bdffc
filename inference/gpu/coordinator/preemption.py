"""Preemption of the GPU: residents, first of all the transcription service, pause before a grant and resume after it.

Residents use the GPU while no lease is granted. Both generations of channels are served. The residents are counted by
their subscriptions: tenants that only request the GPU subscribe by pattern, which Redis does not count.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import redis

from inference.gpu.coordinator import broadcast
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.pause_replies import PauseReplies
from inference.gpu.coordinator.resident_memory import MEMORY
from inference.gpu.coordinator.silent_subscribers import SilentSubscribers
from inference.gpu.protocol import channels, presence

log = logging.getLogger(__name__)

SUBSCRIBE_SECS = 1.0
# Subscribers that never answer are waited for no longer: residents acknowledge at once.
WATCHER_SECS = 2.0
# In one script: a process that was suspended in between would resume the residents of a later lease.
RESUME = """
if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('PUBLISH', ARGV[2], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
"""


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
        self._old = Audience(client, "old", config.watcher_secs)
        self._new = Audience(client, "new", config.watcher_secs)
        self._counted = PauseReplies(session_id)
        self._announced: set[str] = set()  # instances of residents, which may be reconnecting
        self._may_hear_earlier = False  # an earlier pause got no reply: one may still come, and names no pause
        self._n_unnamed, self._unnamed_at = 0, clock()

    def begin(self) -> None:
        """Count the residents and send the pause. Earlier replies do not count as answers."""
        self._began = self._unnamed_at = self._clock()
        self._send_pause()

    def step(self) -> PauseOutcome | None:
        for channel, message in self._replies.new():
            if self._sent_at is not None and channels.is_fresh(message, self._sent_at):
                self._counted.add(channel, message)
                note_version(str(message.get("service") or "a resident"), channels.protocol_of(message))
        waited_secs = self._clock() - self._began
        if self._sent_at is None:
            # Without residents the GPU is free, unless one was here a moment ago and may be reconnecting.
            if not has_residents(self._redis):
                return PauseOutcome()
            if waited_secs >= self._config.pause_secs:
                return PauseOutcome("the transcription service was here a moment ago and cannot be reached")
            self._send_pause()
            return None
        outcome = self._outcome(waited_secs)
        if outcome is not None:  # later pauses know from now on who answers
            self._old.learn(self._counted.n_old_unnamed)
            self._new.learn(self._counted.n_new_unnamed)
            if outcome.refusal is None:
                self._redis.delete(channels.UNANSWERED)
        return outcome

    def _outcome(self, waited_secs: float) -> PauseOutcome | None:
        counted, config = self._counted, self._config
        if counted.refusal is not None:
            return PauseOutcome(counted.refusal)
        has_waited = waited_secs >= min(WATCHER_SECS, config.pause_secs)
        has_left = self._old.is_complete(counted.n_old_freed, counted.n_old_paused, has_waited=has_waited)
        has_left &= self._new.is_complete(counted.n_new_freed, counted.n_new_paused, has_waited=has_waited)
        if has_left and self._announced <= counted.left_instances and self._are_replies_ours():
            return PauseOutcome()
        is_acknowledged = self._old.is_acknowledged(counted.n_old_paused)
        is_acknowledged &= self._new.is_acknowledged(counted.n_new_paused)
        if not is_acknowledged and waited_secs >= config.pause_secs:
            return PauseOutcome(f"the transcription service did not answer within {config.pause_secs:g} s")
        if waited_secs >= config.freed_secs + (config.pause_secs if self._may_hear_earlier else 0.0):
            return PauseOutcome(f"the transcription service did not free the GPU within {config.freed_secs:g} s")
        return None

    def _are_replies_ours(self) -> bool:
        """Return whether the older channels have been quiet for so long that all late replies have come."""
        if self._counted.n_unnamed != self._n_unnamed:
            self._n_unnamed, self._unnamed_at = self._counted.n_unnamed, self._clock()
        if not self._may_hear_earlier or self._counted.n_unnamed == 0:
            return True
        return self._counted.is_balanced and self._clock() - self._unnamed_at >= self._config.pause_secs

    def _send_pause(self) -> None:
        n_old, n_new = count_residents(self._redis)
        tenants = [tenant for tenant in presence.present(self._redis) if tenant.is_resident]
        if n_old + n_new == 0 or n_old + n_new < n_seen(self._redis):
            return
        note_residents(self._redis, self._config)
        self._announced = {tenant.instance for tenant in tenants}
        for tenant in tenants:
            note_version(tenant.service, tenant.protocol)
        self._old.count(n_old, n_announced=len(tenants))
        self._new.count(n_new, n_announced=len(tenants))
        if self._old.n_unknown:
            self._may_hear_earlier = self._redis.set(channels.UNANSWERED, 1, get=True) is not None
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


class Audience:
    """Listeners on one set of channels, and which of them have to leave."""

    def __init__(self, client: "redis.Redis[bytes]", name: str, watcher_secs: float) -> None:
        self.n_unknown = 0  # that have not announced themselves
        self._n_listeners = self._n_watchers = 0
        self._name = name
        self._silent = SilentSubscribers(client, name, watcher_secs)

    def count(self, n_listeners: int, *, n_announced: int) -> None:
        self._n_listeners, self.n_unknown = n_listeners, max(0, n_listeners - n_announced)
        self._n_watchers = self._silent.count(self.n_unknown)
        if self._n_watchers:
            log.warning("subscribers that never answer count as watchers set=%s n=%d", self._name, self._n_watchers)

    def is_acknowledged(self, n_paused: int) -> bool:
        return n_paused >= self._n_listeners - self._n_watchers

    def is_complete(self, n_freed: int, n_paused: int, *, has_waited: bool) -> bool:
        """Return whether every resident has left; a watcher that answers after all has to leave, too."""
        n_residents = max(self._n_listeners - self._n_watchers, min(n_paused, self._n_listeners))
        return n_freed >= n_residents and (n_freed >= self._n_listeners or has_waited)

    def learn(self, n_answered: int) -> None:
        if self.n_unknown:
            self._silent.learn(self.n_unknown, max(0, self.n_unknown - n_answered))


@lru_cache(maxsize=256)
def note_version(service: str, protocol: int) -> None:
    """Log the library of a tenant once; its messages are read in both forms."""
    if protocol != channels.PROTOCOL:
        log.info("gpu tenant has another protocol service=%s protocol=%d ours=%d", service, protocol, channels.PROTOCOL)


def count_residents(client: "redis.Redis[bytes]") -> tuple[int, int]:
    """Return the number of residents on the old channels, and on the new ones."""
    (_, n_old), (_, n_new) = client.pubsub_numsub(channels.PAUSE, channels.COMMAND)
    return n_old, n_new


def has_residents(client: "redis.Redis[bytes]") -> bool:
    """Return whether there are residents, or were a moment ago."""
    if sum(count_residents(client)) > 0 or n_seen(client) > 0:
        return True
    return any(tenant.is_resident for tenant in presence.present(client))


def n_seen(client: "redis.Redis[bytes]") -> int:
    """Return the largest number of subscriptions of residents in the last seconds."""
    count = client.get(channels.RESIDENTS_SEEN) or b""
    n_noted = int(count) if count.isdigit() and len(count) < 10 else 0  # another program may have written there
    return n_noted or MEMORY.n_lost(client)


def note_residents(client: "redis.Redis[bytes]", config: CoordinatorConfig) -> None:
    """Note the number of residents now; a larger one of a moment ago remains until it expires."""
    n_now = sum(count_residents(client))
    if n_now >= n_seen(client):
        MEMORY.note(client, n_now, config.resident_secs)


def resume(client: "redis.Redis[bytes]", *, epoch: int, session_id: str, requester: str) -> bool:
    """Notify the residents that they may use the GPU; False when a later lease was granted meanwhile, whose pause they
    have to obey. A repeated message has no effect."""
    old = channels.encode({"task_id": session_id})
    new = channels.command("resume", session_id=session_id, requester=requester)
    arguments = [broadcast.first_rank(epoch + 1), channels.RESUME, old, channels.COMMAND, new]
    return int(client.eval(RESUME, 1, channels.EPOCH, *arguments)) == 1  # type: ignore[no-untyped-call]


def recall(client: "redis.Redis[bytes]", *, session_id: str, requester: str, timeout_ms: int) -> None:
    """Recall the lease of ``session_id`` for ``requester``."""
    message = channels.command("pause", session_id=session_id, requester=requester, timeout_ms=timeout_ms)
    client.publish(channels.COMMAND, message)
