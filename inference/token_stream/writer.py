"""The thread that writes token logs: all entries since the last write go out in one round trip.

Decoding never waits for Redis: while it is unavailable, entries are buffered here, bounded by the answers' length.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

import redis

from inference.errors import StoreUnavailable
from inference.token_stream import redis_log
from inference.token_stream.entries import AnyEntry, EndEntry, TokenEntry
from inference.token_stream.redis_log import Append, Appended, Verdict

log = logging.getLogger(__name__)

RETRY_SECS = 0.25
ENTRIES_PER_APPEND = 1000
END_PATIENCE_SECS = 120.0  # after that no End is needed: readers find it in the row


@dataclass(eq=False)
class _Channel:
    """The pending entries of a claim. ``tokens`` holds all its tokens, in case Redis loses the log."""

    generation_id: UUID
    epoch: int
    tokens: list[TokenEntry]
    pending: deque[AnyEntry] = field(default_factory=deque)
    ended_at: float | None = None


class LogWriter:
    """Writes the logs of all claims of this process.

    ``on_lost`` is called in the writer's thread when a later claim owns a log. ``holds`` is called when Redis has lost
    a log, and with it the epoch that would refuse the writer: it returns whether the row still has this claim.
    """

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        on_lost: Callable[[UUID, int], None],
        holds: Callable[[UUID, int], bool] = lambda *_: True,
    ) -> None:
        self._client = client
        self._on_lost = on_lost
        self._holds = holds
        # By claim, not by generation: a worker may hold a new claim before it notices the loss of the old one.
        self._channels: dict[tuple[UUID, int], _Channel] = {}
        self._changed = threading.Condition()
        self._is_ending = False
        self._is_unavailable = False
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def open(self, generation_id: UUID, epoch: int, written: Sequence[TokenEntry]) -> None:
        """Begin a claim's channel; ``written`` are the tokens of earlier claims."""
        with self._changed:
            self._channels[generation_id, epoch] = _Channel(generation_id, epoch, list(written))

    def put(self, entries: Iterable[tuple[UUID, int, AnyEntry]]) -> None:
        """Queue entries of (generation, epoch), in order. Entries after an End or ``forget`` are dropped."""
        with self._changed:
            for generation_id, epoch, entry in entries:
                channel = self._channels.get((generation_id, epoch))
                if channel is None or channel.ended_at is not None:
                    continue
                channel.pending.append(entry)
                if isinstance(entry, TokenEntry):
                    channel.tokens.append(entry)
                elif isinstance(entry, EndEntry):
                    channel.ended_at = time.monotonic()
            self._changed.notify_all()

    def forget(self, generation_id: UUID, epoch: int) -> None:
        """Close a channel without an End."""
        with self._changed:
            self._channels.pop((generation_id, epoch), None)
            self._changed.notify_all()

    def flush(self, generation_id: UUID, epoch: int, timeout_secs: float) -> bool:
        """Wait until all queued entries of the claim are written; False after the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_written((generation_id, epoch)), timeout_secs)

    def end(self, timeout_secs: float) -> None:
        """Write the queued entries and stop the thread."""
        with self._changed:
            self._changed.wait_for(lambda: all(map(self._is_written, self._channels)), timeout_secs)
            self._is_ending = True
            self._changed.notify_all()
        self._thread.join(timeout_secs)

    def _is_written(self, claim: tuple[UUID, int]) -> bool:
        channel = self._channels.get(claim)
        return channel is None or not channel.pending

    # ---- the writer's thread ----

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_ending or any(c.pending for c in self._channels.values()))
                if self._is_ending:
                    return
            try:
                is_written = self.write_once()
            except Exception:
                # Any error: without this thread the readers of every answer would receive nothing until its end.
                log.exception("token logs not written, trying again")
                is_written = False
            if not is_written:
                time.sleep(RETRY_SECS)

    def write_once(self) -> bool:
        """Write all pending entries in one round trip; False while Redis is unavailable."""
        with self._changed:
            channels = [channel for channel in self._channels.values() if channel.pending]
            appends = [
                Append(channel.generation_id, channel.epoch, list(islice(channel.pending, ENTRIES_PER_APPEND)))
                for channel in channels
            ]
        try:
            results = redis_log.append(self._client, appends)
            for index, (append, result) in enumerate(zip(appends, results, strict=True)):
                # Redis lost the log, and this claim may have been lost meanwhile: the row decides.
                if result.verdict is Verdict.GAP and not self._holds(append.generation_id, append.epoch):
                    results[index] = Appended(Verdict.STALE, result.last)
        except StoreUnavailable as error:
            self._redis_unavailable(error)
            return False
        self._is_unavailable = False
        with self._changed:
            lost = [
                (channel.generation_id, channel.epoch)
                for channel, append, result in zip(channels, appends, results, strict=True)
                if not self._settle(channel, len(append.entries), result)
            ]
            self._changed.notify_all()
        for generation_id, epoch in lost:
            self._on_lost(generation_id, epoch)
        return True

    def _settle(self, channel: _Channel, n_sent: int, result: Appended) -> bool:
        """Remove the written entries from the channel; False when its claim is lost."""
        match result.verdict:
            case Verdict.GAP:
                log.warning("token log lost in Redis, writing it again generation=%s", channel.generation_id)
                # Every token after the last one in Redis is queued again; statuses of the past are dropped.
                ends = [entry for entry in channel.pending if isinstance(entry, EndEntry)]
                channel.pending = deque([*channel.tokens[result.last :], *ends])
            case Verdict.WRITTEN:
                for _ in range(n_sent):
                    channel.pending.popleft()
                if channel.ended_at is not None and not channel.pending:
                    self._close(channel)
            case Verdict.ENDED | Verdict.BROKEN:
                self._close(channel)
            case Verdict.STALE:
                log.warning("token log taken over generation=%s epoch=%d", channel.generation_id, channel.epoch)
                self._close(channel)
        return result.verdict is not Verdict.STALE

    def _redis_unavailable(self, error: StoreUnavailable) -> None:
        if not self._is_unavailable:
            self._is_unavailable = True
            log.warning("token logs wait for Redis error=%s", error)
        now = time.monotonic()
        with self._changed:
            for channel in list(self._channels.values()):
                if channel.ended_at is not None and now - channel.ended_at > END_PATIENCE_SECS:
                    self._close(channel)
            self._changed.notify_all()

    def _close(self, channel: _Channel) -> None:
        self._channels.pop((channel.generation_id, channel.epoch), None)
