"""Sharing the card from any Python program, in five lines; needs `redis` and `httpx`, no Django.

    with gpu_tenant("transcription", on_pause=unload_model, on_resume=load_model) as gpu:
        for chunk in chunks:
            with gpu.use():
                transcribe(chunk)

A *resident* uses the card while nobody asks for it: ``on_resume`` is called when it may (also at the beginning),
``on_pause`` when it has to leave, between two uses, and has to return with the memory free. A *guest*
(``resident=False``) has the card only inside ``with gpu.ask(priority=1):``, as a resident may have, too.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from inference.gpu.protocol import channels
from inference.gpu.sdk.client import GpuRefused, TenantClient, TenantLease, new_session

__all__ = ["GpuRefused", "GpuTenant", "gpu_tenant"]

log = logging.getLogger(__name__)

LISTEN_SECS = 0.2
LOOK_SECS = 1.0  # how often the signs are compared with what we believe
RECONNECT_SECS = 0.5
# A holder that cannot reach Redis has left the card by then (its lease ends after a few seconds without renewal).
LONELY_SECS = 30.0
UNKNOWN_LOOKS = 3  # with no sign of a coordinator: nobody lends the card
AGAIN_SECS = 2.0  # the same pause comes on both sets of channels
# A pattern for one name: whoever listens so is not counted among the residents.
ONLY_COMMANDS = channels.COMMAND[:-1] + f"[{channels.COMMAND[-1]}]"


def gpu_tenant(
    service: str,
    *,
    on_pause: Callable[[], object],
    on_resume: Callable[[], object],
    redis_url: str | None = None,
    coordinator_url: str | None = None,
    resident: bool = True,
) -> "GpuTenant":
    """``redis_url`` and ``coordinator_url`` default to GPU_REDIS_URL or REDIS_URL, and GPU_COORDINATOR_URL, then to
    this machine. Both calls come from a thread of the tenant's own, never at the same time."""
    redis_url = (
        redis_url or os.environ.get("GPU_REDIS_URL") or os.environ.get("REDIS_URL") or "redis://127.0.0.1:6379/0"
    )
    coordinator_url = coordinator_url or os.environ.get("GPU_COORDINATOR_URL") or "http://127.0.0.1:8001"
    client = redis.Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=5)
    return GpuTenant(service, client, TenantClient(coordinator_url, service), on_pause, on_resume, resident=resident)


class GpuTenant:
    """One program's share of the card. Made by ``gpu_tenant``."""

    def __init__(
        self,
        service: str,
        client: "redis.Redis[bytes]",
        coordinator: TenantClient,
        on_pause: Callable[[], object],
        on_resume: Callable[[], object],
        *,
        resident: bool,
    ) -> None:
        self.service = service
        self.lonely_secs = LONELY_SECS
        self._redis = client
        self._coordinator = coordinator
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._is_resident = resident
        self._state = threading.Condition()
        self._moving = threading.RLock()  # around on_pause and on_resume
        self._is_allowed = False
        self._n_using = 0
        self._lease: TenantLease | None = None
        self._asking = ""  # the session of a request on its way
        self._answered = ("", 0.0)  # the last pause that was obeyed, and when
        self._n_disagreements = self._n_unknown = 0
        self._heard_at = time.monotonic()  # when Redis last answered
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"gpu tenant {service}", daemon=True)

    def __enter__(self) -> "GpuTenant":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LISTEN_SECS + 5.0)
        self._coordinator.close()
        self._redis.close()

    # ---- for the program ----

    @property
    def is_allowed(self) -> bool:
        """Whether the card may be used just now. Only inside ``use`` does it stay so."""
        return self._is_allowed

    @contextmanager
    def use(self) -> Iterator[None]:
        """Wait until the card may be used, and keep it for as long as the block takes: a second, not a minute."""
        with self._state:
            self._state.wait_for(lambda: self._is_allowed)
            self._n_using += 1
        try:
            yield
        finally:
            with self._state:
                self._n_using -= 1
                self._state.notify_all()

    @contextmanager
    def ask(self, *, priority: int = 1, timeout_secs: float = 60.0) -> Iterator[TenantLease]:
        """Ask the coordinator for the card (1: at once, 2: in the background) and have it until the block ends, or
        until somebody more urgent comes: then ``use`` waits. Raises GpuRefused."""
        lease = self._acquire(priority, timeout_secs)
        done = threading.Event()
        keeping = threading.Thread(target=self._keep, args=(lease, done), name="gpu lease", daemon=True)
        keeping.start()
        try:
            yield lease
        finally:
            done.set()
            keeping.join()
            self._give_up(lease)

    # ---- asking ----

    def _acquire(self, priority: int, timeout_secs: float) -> TenantLease:
        session_id = self._asking = new_session(self.service)
        try:
            lease = self._coordinator.acquire(session_id, priority=priority, timeout_secs=timeout_secs)
            self._lease = lease
        finally:
            self._asking = ""
        # Somebody more urgent may have asked before we knew that it was ours.
        if self._coordinator.keeps(lease) is not True:
            self._lease = None
            self._coordinator.release(session_id)
            raise GpuRefused("the card was taken back at once")
        self._enter()
        return lease

    def _keep(self, lease: TenantLease, done: threading.Event) -> None:
        kept_at = time.monotonic()
        while not done.wait(lease.renew_secs):
            if self._lease is not lease:
                return
            asked_at = time.monotonic()
            is_kept = self._coordinator.keeps(lease)
            kept_at = asked_at if is_kept else kept_at
            silent_secs = time.monotonic() - kept_at
            # Who cannot renew has left before the lease ends and somebody else comes.
            if is_kept is False or silent_secs >= (lease.lost_after_secs or math.inf):
                log.warning("%s: the lease of the card has ended", self.service)
                self._give_up(lease)
                return

    def _give_up(self, lease: TenantLease) -> None:
        """The end of a lease, whoever wanted it. A resident stays until it is told to leave."""
        with self._moving:
            if self._lease is not lease:
                return
            self._lease = None
            if not self._is_resident:
                self._leave()
            self._coordinator.release(lease.session_id)

    # ---- coming and going ----

    def _enter(self) -> None:
        with self._moving:
            if self._is_allowed:
                return
            self._on_resume()
            with self._state:
                self._is_allowed = True
                self._state.notify_all()

    def _leave(self) -> None:
        """Returns with the memory free; what ``on_pause`` raises comes out of here."""
        with self._moving:
            was_allowed = self._is_allowed
            with self._state:
                self._is_allowed = False
                self._state.wait_for(lambda: self._n_using == 0)
            if was_allowed:
                self._on_pause()

    # ---- listening ----

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                log.debug("%s: Redis is away: %s", self.service, error)
            except Exception:
                # The program's own calls: without this thread nobody could ever have the card back.
                log.exception("%s: coming or leaving failed", self.service)
            if self._is_resident and time.monotonic() - self._heard_at > self.lonely_secs:
                self._enter_alone()
            self._over.wait(RECONNECT_SECS)

    def _enter_alone(self) -> None:
        try:
            self._enter()
        except Exception:
            log.exception("%s: coming back without a coordinator failed", self.service)

    def _listen(self) -> None:
        """Until the connection breaks or the tenant ends."""
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            if self._is_resident:
                pubsub.subscribe(channels.COMMAND, channels.PAUSE, channels.RESUME)
            else:
                pubsub.psubscribe(ONLY_COMMANDS)
            look_at = 0.0
            while not self._over.is_set():
                message = pubsub.get_message(timeout=LISTEN_SECS)
                if message is not None:
                    self._hear(message["channel"].decode(), channels.decode(message["data"]) or {})
                if time.monotonic() >= look_at:
                    self._look()
                    self._heard_at = time.monotonic()
                    look_at = self._heard_at + LOOK_SECS

    def _hear(self, channel: str, message: dict[str, Any]) -> None:
        what = message.get("command") if channel == channels.COMMAND else channel
        session_id = str(message.get("session_id") or message.get("task_id") or "")
        lease = self._lease
        if what == "pause" and lease is not None and session_id == lease.session_id:
            self._give_back(lease)
        elif not self._is_resident:
            return
        elif what in ("pause", channels.PAUSE):
            self._pause(session_id, is_old=what == channels.PAUSE)
        elif what in ("resume", channels.RESUME):
            self._enter()
            self._answer("resumed", session_id)

    def _give_back(self, lease: TenantLease) -> None:
        """Somebody more urgent wants what we hold."""
        with self._moving:
            self._lease = None
            self._leave()
            self._coordinator.release(lease.session_id)
        self._answer("paused", lease.session_id)

    def _pause(self, session_id: str, *, is_old: bool) -> None:
        former, at = self._answered
        if session_id == former and time.monotonic() - at < AGAIN_SECS:
            if not is_old:
                self._answer("paused", session_id)
            return
        # What we ask for ourselves is emptied for us: nothing has to leave.
        is_own = session_id == self._asking and session_id != ""
        self._redis.publish(channels.PAUSED, _old("paused", offloading=True, queued_chunks=0))
        self._answer("paused", session_id, offloading=True)
        try:
            if not is_own:
                self._leave()
        except Exception:
            self._answer("error", session_id, error="the program could not leave the card")
            raise
        self._redis.publish(channels.FREED, _old("freed"))
        self._answer("paused", session_id)
        self._answered = (session_id, time.monotonic())

    def _answer(self, what: str, session_id: str, *, error: str | None = None, **metadata: object) -> None:
        told = channels.ack(what, service=self.service, session_id=session_id, error=error, metadata=metadata)
        self._redis.publish(channels.ack_channel(self.service), told)

    def _look(self) -> None:
        """What was said while nobody listened is read from the signs. Twice, since they lag behind the words."""
        raw = self._redis.get(channels.STATE)
        if not self._is_resident or self._lease is not None or self._asking:
            return
        self._n_unknown = self._n_unknown + 1 if raw is None else 0
        if raw is None and self._n_unknown < UNKNOWN_LOOKS:
            return
        is_free = raw is None or raw.decode() in (channels.STATE_FREE, self.service)
        self._n_disagreements = self._n_disagreements + 1 if is_free != self._is_allowed else 0
        is_first = not self._is_allowed and self._answered == ("", 0.0)
        if self._n_disagreements < (1 if is_first else 2):
            return
        self._n_disagreements = 0
        if is_free:
            self._enter()
        else:
            self._leave()


def _old(status: str, **more: object) -> str:
    return channels.encode({"status": status, **more})
