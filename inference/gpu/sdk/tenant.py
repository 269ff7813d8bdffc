"""Sharing the GPU from any Python program, in five lines; needs `redis` and `httpx`, no Django.

    with gpu_tenant("transcription", on_pause=unload_model, on_resume=load_model) as gpu:
        for chunk in chunks:
            with gpu.use():
                transcribe(chunk)

A *resident* uses the GPU while no lease is granted: ``on_resume`` is called when it may (also at the start),
``on_pause`` when it has to leave, between two uses, and has to return with the memory free. A *guest*
(``resident=False``) has the GPU only inside ``with gpu.ask(priority=1):``, which a resident may use, too. In asyncio
programs it is ``async with gpu.use():``. Leaving ``with gpu_tenant(...)`` calls ``on_pause`` a last time. A tenant
belongs to the process that entered it: after a fork the child makes its own.
"""

import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import redis

from inference.gpu.protocol import channels
from inference.gpu.protocol.presence import Presence
from inference.gpu.sdk.addresses import GpuAddresses, read_addresses
from inference.gpu.sdk.announcer import ResidentAnnouncer
from inference.gpu.sdk.client import GpuRefused, TenantClient, TenantLease, new_session
from inference.gpu.sdk.inbox import MessageInbox, session_of
from inference.gpu.sdk.replies import ReplySender
from inference.gpu.sdk.use import GpuUse

__all__ = ["GpuRefused", "GpuTenant", "gpu_tenant"]

log = logging.getLogger(__name__)

LISTEN_SECS = 0.2
CHECK_SECS = 1.0  # between two comparisons of the published state with our own
RECONNECT_SECS = 0.5
# A holder that cannot reach Redis has left the GPU by then: its lease expires after a few seconds without renewal.
LONELY_SECS = 30.0
UNKNOWN_CHECKS = 3  # without a published state: there is no coordinator
REPEAT_SECS = 2.0  # within which the same pause arrives on both sets of channels
# Some coordinators drop what arrives while they are still sending the pause.
FLUSH_SECS = 0.15


def gpu_tenant(
    service: str,
    *,
    on_pause: Callable[[], object],
    on_resume: Callable[[], object],
    redis_url: str | None = None,
    coordinator_url: str | None = None,
    resident: bool = True,
    is_loaded: bool = False,
) -> "GpuTenant":
    """Make a tenant. ``redis_url`` and ``coordinator_url`` default to GPU_REDIS_URL or REDIS_URL, and
    GPU_COORDINATOR_URL, then to what ``manage.py serve`` of the same user has written, then to the usual ports of this
    machine. A thread of the tenant calls both callbacks, never at the same time; ``on_pause`` again when it has raised.
    ``is_loaded``: the program may have memory of the GPU from the beginning."""
    written = read_addresses() or GpuAddresses("redis://127.0.0.1:6379/0", "http://127.0.0.1:8001")
    redis_url = redis_url or os.environ.get("GPU_REDIS_URL") or os.environ.get("REDIS_URL") or written.redis_url
    coordinator_url = coordinator_url or os.environ.get("GPU_COORDINATOR_URL") or written.coordinator_url
    client = redis.Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=5)
    coordinator = TenantClient(coordinator_url, service)
    return GpuTenant(service, client, coordinator, on_pause, on_resume, resident=resident, is_loaded=is_loaded)


class GpuTenant:
    """A program that shares the GPU; made by ``gpu_tenant``."""

    def __init__(
        self,
        service: str,
        client: "redis.Redis[bytes]",
        coordinator: TenantClient,
        on_pause: Callable[[], object],
        on_resume: Callable[[], object],
        *,
        resident: bool,
        is_loaded: bool = False,
    ) -> None:
        self.service = service
        self.lonely_secs = LONELY_SECS
        self._instance = secrets.token_hex(8)  # several processes may have one service name
        self._announcer = ResidentAnnouncer(client, Presence(service, self._instance, resident), CHECK_SECS)
        self._coordinator_protocol = channels.PROTOCOL
        self._replies = ReplySender(client, service, self._instance)
        self._redis = client
        self._coordinator = coordinator
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._is_resident = resident
        self._state = threading.Condition()
        self._moving = threading.RLock()  # around on_pause and on_resume
        self._is_allowed = False
        self._may_hold_memory = is_loaded  # until on_pause has returned without an error
        self._n_using = 0
        self._lease: TenantLease | None = None
        self._pending_session = ""  # of a request that is on its way
        self._last_pause = ("", 0.0)  # session and time of the last pause that was acted on
        self._n_disagreements = self._n_unknown = 0
        self._redis_seen_at = time.monotonic()
        self._was_redis_seen = False
        self._pid = os.getpid()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"gpu tenant {service}", daemon=True)

    def __enter__(self) -> "GpuTenant":
        self._pid = os.getpid()
        self._thread.start()
        if self._is_resident:
            self._announcer.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._announcer.end()
        with self._state:
            self._state.notify_all()
        self._thread.join(LISTEN_SECS + 5.0)
        try:
            self._leave()
        finally:
            if self._is_resident and self._was_redis_seen:
                self._announcer.withdraw()
            self._coordinator.close()
            self._redis.close()

    # ---- for the program ----

    @property
    def is_allowed(self) -> bool:
        """True while the GPU may be used; only inside ``use`` does this stay true."""
        return self._is_allowed and self._pid == os.getpid()

    def use(self) -> GpuUse:
        """Wait until the GPU may be used, and keep it for the block, which should take a second, not a minute.

        For ``with`` and ``async with``. Raises GpuRefused when there is nothing to wait for: a guest that does not ask,
        or whose lease was recalled (it may ask again); RuntimeError in a fork of the process that entered the tenant.
        """
        return GpuUse(self._begin_use, self._end_use)

    def _begin_use(self, *, waits: bool) -> bool:
        """Return whether the use has begun; with ``waits`` it has."""
        self._check_process()
        with self._state:
            if waits:
                self._state.wait_for(lambda: self._is_allowed or self._is_hopeless)
            if self._is_allowed:
                self._n_using += 1
            elif self._is_hopeless:
                raise GpuRefused("the GPU is not this program's: its lease was recalled or lost, or it has not asked")
            return self._is_allowed

    def _end_use(self) -> None:
        with self._state:
            self._n_using -= 1
            self._state.notify_all()

    @property
    def _is_hopeless(self) -> bool:
        is_asking = self._is_resident or self._lease is not None or bool(self._pending_session)
        return self._over.is_set() or not is_asking

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("this GPU tenant was entered in another process: a fork has to make its own")

    @contextmanager
    def ask(self, *, priority: int = 1, timeout_secs: float = 60.0) -> Iterator[TenantLease]:
        """Acquire the GPU (priority 1: interactive, 2: background) until the block ends, or until a more urgent request
        recalls it: then ``use`` waits in a resident, and raises in a guest. Raises GpuRefused."""
        self._check_process()
        lease = self._acquire(priority, timeout_secs)
        done = threading.Event()
        renewing = threading.Thread(target=self._renew_until, args=(lease, done), name="gpu lease", daemon=True)
        renewing.start()
        try:
            yield lease
        finally:
            done.set()
            renewing.join()
            self._end_lease(lease)

    # ---- the lease ----

    def _acquire(self, priority: int, timeout_secs: float) -> TenantLease:
        session_id = self._pending_session = new_session(self.service)
        try:
            lease = self._coordinator.acquire(session_id, priority=priority, timeout_secs=timeout_secs)
            self._lease = lease
        finally:
            self._pending_session = ""
        # A more urgent request may have recalled it before we knew that it was ours.
        if self._coordinator.renew(lease) is not True:
            self._lease = None
            self._coordinator.release(session_id)
            raise GpuRefused("the lease was recalled at once")
        self._enter()
        return lease

    def _renew_until(self, lease: TenantLease, done: threading.Event) -> None:
        renewed_at = time.monotonic()
        while not done.wait(lease.renew_secs):
            if self._lease is not lease:
                return
            sent_at = time.monotonic()
            is_renewed = self._coordinator.renew(lease)
            renewed_at = sent_at if is_renewed else renewed_at
            silent_secs = time.monotonic() - renewed_at
            # Without renewals the GPU has to be left before the lease ends and another session gets it.
            if is_renewed is False or silent_secs >= (lease.lost_after_secs or math.inf):
                log.warning("gpu lease ended service=%s", self.service)
                self._end_lease(lease)
                return

    def _end_lease(self, lease: TenantLease) -> None:
        """End the lease. A resident stays until it is paused."""
        with self._moving:
            if self._lease is not lease:
                return
            self._lease = None
            if not self._is_resident:
                self._leave()
            self._coordinator.release(lease.session_id)

    # ---- entering and leaving ----

    def _enter(self) -> None:
        with self._moving:
            if self._is_allowed:
                return
            self._may_hold_memory = True
            self._on_resume()
            # The same session may be paused again now, and has to be obeyed then.
            self._last_pause = (self._last_pause[0], 0.0)
            with self._state:
                self._is_allowed = True
                self._state.notify_all()

    def _leave(self) -> None:
        """Return with the memory free; passes on the errors of ``on_pause``."""
        with self._moving:
            with self._state:
                self._is_allowed = False
                self._state.notify_all()
                self._state.wait_for(lambda: self._n_using == 0)
            if self._may_hold_memory:
                self._on_pause()
                self._may_hold_memory = False

    # ---- listening ----

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                log.debug("redis is away service=%s error=%s", self.service, error)
            except Exception:
                # Raised by a callback: without this thread no lease could be granted to other tenants again.
                log.exception("entering or leaving the GPU failed service=%s", self.service)
            if self._is_resident and time.monotonic() - self._redis_seen_at > self.lonely_secs:
                self._act_alone()
            self._over.wait(RECONNECT_SECS)

    def _act_alone(self) -> None:
        """Enter the GPU without Redis, where it was reached before; the other holder has left by now.

        Where it never was, its address may be wrong, and the holder may be at another one.
        """
        if not self._was_redis_seen:
            log.warning(
                "no Redis at the address of this GPU tenant, GPU not used (GPU_REDIS_URL) service=%s", self.service
            )
            self._redis_seen_at = time.monotonic()  # warned again after the same time
            return
        try:
            self._enter()
        except Exception:
            log.exception("entering the GPU without a coordinator failed service=%s", self.service)

    def _listen(self) -> None:
        """Handle messages until the connection breaks or the tenant ends."""
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            if self._is_resident:
                pubsub.subscribe(channels.COMMAND, channels.PAUSE, channels.RESUME)
            else:
                pubsub.psubscribe(channels.ONLY_COMMANDS)
            inbox, check_at = MessageInbox(pubsub), 0.0
            while not self._over.is_set():
                message = inbox.next(LISTEN_SECS)
                if message is not None:
                    self._handle(*message, inbox)
                if time.monotonic() >= check_at:
                    self._compare_state()
                    self._redis_seen_at, self._was_redis_seen = time.monotonic(), True
                    check_at = self._redis_seen_at + CHECK_SECS

    def _handle(self, kind: str, message: dict[str, Any], inbox: MessageInbox) -> None:
        session_id = session_of(message)
        log.debug("gpu message service=%s kind=%s session=%s", self.service, kind, session_id)
        lease, protocol = self._lease, channels.protocol_of(message)
        if kind == "pause" and lease is not None and session_id == lease.session_id:
            # Recalled for a more urgent request.
            with self._moving:
                self._lease = None
                self._leave()
                self._coordinator.release(session_id)
            self._replies.answer("paused", session_id)
        elif not self._is_resident:
            return
        elif kind in channels.PAUSES:
            self._note_protocol(protocol)
            self._pause(session_id, inbox, is_old=kind == channels.PAUSE)
        elif kind in channels.RESUMES and not self._is_late_resume(session_id, protocol):
            self._enter()
            self._replies.answer("resumed", session_id)

    def _pause(self, session_id: str, inbox: MessageInbox, *, is_old: bool) -> None:
        last_session, at = self._last_pause
        if session_id == last_session and time.monotonic() - at < REPEAT_SECS:
            if not is_old:
                self._replies.answer("paused", session_id)
            return
        # The pause belongs to our own request: nothing has to leave.
        is_own = session_id == self._pending_session and session_id != ""
        began = time.monotonic()
        self._replies.begin_to_leave(session_id)
        try:
            if not is_own:
                self._leave()
        except Exception:
            self._replies.answer("error", session_id, error="the program could not leave the GPU")
            raise
        if self._coordinator_protocol == channels.FIRST_PROTOCOL:
            self._last_pause = (session_id, 0.0)
            has_ended = partial(inbox.has_ended, session_id)
            if not self._announcer.await_others(session_id, has_ended):
                return
            time.sleep(max(0.0, began + FLUSH_SECS - time.monotonic()))
            if has_ended():  # its reply would count for the next session
                return
        self._replies.have_left(session_id)
        self._last_pause = (session_id, time.monotonic())

    def _is_late_resume(self, session_id: str, protocol: int) -> bool:
        """Return whether the next session may have the GPU already, as some coordinators and late readers have it; the
        published state decides then."""
        if protocol != channels.FIRST_PROTOCOL:
            return False
        raw = self._redis.get(channels.STATE)
        if raw is not None and raw.decode() not in (channels.STATE_FREE, self.service):
            return True
        return "" not in (session_id, self._last_pause[0]) and session_id != self._last_pause[0]

    def _note_protocol(self, protocol: int) -> None:
        """Log a coordinator of another version once; it is answered in a form that both versions read."""
        if protocol != self._coordinator_protocol:
            log.info("gpu coordinator has another protocol service=%s protocol=%d", self.service, protocol)
        self._coordinator_protocol = protocol

    def _compare_state(self) -> None:
        """Catch up on missed messages from the published state; twice in a row, since it lags behind them."""
        raw = self._redis.get(channels.STATE)
        if not self._is_resident or self._lease is not None or self._pending_session:
            return
        self._n_unknown = self._n_unknown + 1 if raw is None else 0
        if raw is None and self._n_unknown < UNKNOWN_CHECKS:
            return
        if raw is not None:
            is_free = raw.decode() in (channels.STATE_FREE, self.service)
        else:  # its coordinator is gone, or Redis was wiped
            is_free = self._is_allowed or not (self._redis.exists(channels.HELD) or self._coordinator.is_lent())
        is_settled = is_free if self._is_allowed else not (is_free or self._may_hold_memory)
        self._n_disagreements = 0 if is_settled else self._n_disagreements + 1
        is_first = not self._is_allowed and self._last_pause == ("", 0.0)
        if self._n_disagreements < (1 if is_first else 2):
            return
        self._n_disagreements = 0
        if is_free:
            self._enter()
        else:
            self._leave()
