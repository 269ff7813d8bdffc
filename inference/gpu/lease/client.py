"""The lease client: asks for the card, watches over the lease while it is held, gives it back.

One thread owns all state here; everybody else posts orders. Knows neither runners nor how a coordinator is spoken to.

    idle --want--> asking --grant--> held --release--> idle
                   |    ^              '--- looks, wanted, lost: told, and held until it is released
                   '----'  refused: asked again later while it is wanted
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inference.gpu.lease.acquire import Backoff, LeaseRequester, RequestAnswered, RequestWaiting
from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused, Post
from inference.gpu.transports.port import Coordinator, CoordinatorFault, Denial, Grant
from inference.runtime.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

IDLE_SECS = 3600.0
RELEASE_TRIES = 30
RELEASE_AGAIN_SECS = 1.0


@dataclass(frozen=True)
class Want:
    priority: int
    session_ids: frozenset[str]


@dataclass(frozen=True)
class Unwant:
    """Nothing needs the card."""


@dataclass(frozen=True)
class Release:
    session_id: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class PauseCame:
    session_id: str
    requester: str


@dataclass(frozen=True)
class End:
    """The last order."""


@dataclass
class UnsentRelease:
    """A release that the coordinator has not taken yet."""

    session_id: str
    result: Mapping[str, Any]
    at: float
    n_tries: int = 0


@dataclass
class HeldLease:
    """The lease, and when what about it is due."""

    lease: Lease
    look_at: float
    seen_at: float  # when it was last known to be ours
    was_asked_back: bool = False
    is_lost: bool = False


Order = Want | Unwant | Release | PauseCame | RequestWaiting | RequestAnswered | End


@dataclass(frozen=True)
class LeaseClientOptions:
    backoff: Backoff = field(default_factory=Backoff)
    breaker: Callable[[], CircuitBreaker] = lambda: CircuitBreaker(max_failures=3, pause_secs=30.0)
    grant_delay_secs: float = 0.0


class CoordinatorLeaseClient:
    """Obeys ``lease.LeaseClient``. ``publish_freed`` tells the other tenants that what one of them wanted is free."""

    def __init__(
        self,
        coordinator: Coordinator,
        post: Post,
        publish_freed: Callable[[str, Mapping[str, object]], None],
        options: LeaseClientOptions | None = None,
    ) -> None:
        options = options or LeaseClientOptions()
        self._coordinator = coordinator
        self._post = post
        self._publish_freed = publish_freed
        self._backoff = options.backoff
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._breaker = options.breaker()
        self._asker = LeaseRequester(
            coordinator, self._breaker, self._orders.put, grant_delay_secs=options.grant_delay_secs
        )
        self._want: Want | None = None
        self._wanted_at = 0.0
        self._held: HeldLease | None = None
        self._unsent: list[UnsentRelease] = []
        self._ask_at = 0.0
        self._n_refusals = 0
        self._refusal = ""
        self._freed = ""  # the session that was given back last
        self._given_back = ""  # the same, known at once in every thread
        self._thread = threading.Thread(target=self._run, name="gpu lease client", daemon=True)

    # ---- for any thread ----

    def begin(self) -> None:
        self._thread.start()

    def request(self, *, priority: int, session_ids: frozenset[str]) -> None:
        self._orders.put(Want(priority, session_ids))

    def withdraw(self) -> None:
        self._orders.put(Unwant())

    def release(self, lease: Lease, result: Mapping[str, Any]) -> None:
        self._given_back = lease.session_id
        self._orders.put(Release(lease.session_id, result))

    def pause_received(self, session_id: str, requester: str) -> None:
        """Somebody said on the common channel that this session should leave the card."""
        self._orders.put(PauseCame(session_id, requester))

    def end(self, timeout_secs: float) -> None:
        self._orders.put(End())
        self._thread.join(timeout_secs)

    def describe(self) -> dict[str, Any]:
        held, want = self._held, self._want
        is_refused = bool(self._refusal) and self._asker.asked is None
        state = "held" if held else "idle" if want is None else "refused" if is_refused else "waiting"
        told = {"coordinator": self._coordinator.kind, "state": state, "detail": self._refusal}
        return told | {"breaker": str(self._breaker.state), "lease_epoch": held.lease.epoch if held else None}

    # ---- the keeper's thread ----

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            try:
                order = self._orders.get(timeout=self._secs_until_due())
            except queue.Empty:
                order = None
            try:
                goes_on = not isinstance(order, End)
                if order is not None:
                    self._handle(order)
                self._do_what_is_due(time.monotonic())
            except Exception:
                log.exception("keeping the GPU lease failed at %s", type(order).__name__)
                time.sleep(1.0)  # whatever it was, it may come again at once
        self._finish()

    def _secs_until_due(self) -> float:
        now = time.monotonic()
        due = [unsent.at for unsent in self._unsent]
        if self._held is not None and not self._held.is_lost:
            due.append(self._held.look_at)
        if self._may_ask():
            due.append(self._ask_at)
        return max(0.0, min(due, default=now + IDLE_SECS) - now)

    def _handle(self, order: Order) -> None:
        match order:
            case Want() if self._held is None:
                if self._want is None:
                    self._wanted_at = time.monotonic()
                self._want = order
                if self._asker.asked is not None and order.priority < self._asker.asked.priority:
                    self._asker.withdraw()  # asked again as what it is now: people wait
            case Unwant():
                self._want, self._refusal, self._n_refusals = None, "", 0
                # Others who want it later need not wait for as long as the last ones would have.
                self._ask_at = min(self._ask_at, time.monotonic() + self._backoff.first_secs)
                self._asker.withdraw()
            case Release(session_id, result):
                self._released(session_id, result)
            case PauseCame(session_id, requester):
                self._asked_back(session_id, requester)
            case RequestWaiting(reason) if self._want is not None:
                # Not refused for good, but whoever waits for the answer should know why it is not faster.
                self._refusal = reason
                self._post(LeaseRefused(reason, 0.0))
            case RequestAnswered():
                self._answered(order)

    def _do_what_is_due(self, now: float) -> None:
        for unsent in [unsent for unsent in self._unsent if now >= unsent.at]:
            self._send_release(unsent)
        held = self._held
        if held is not None and not held.is_lost and now >= held.look_at:
            self._look(held)
        if self._may_ask() and now >= self._ask_at:
            self._ask()

    # ---- asking ----

    def _may_ask(self) -> bool:
        # A coordinator that still believes in our last lease would let us wait for ourselves.
        return self._want is not None and self._held is None and self._asker.asked is None and not self._unsent

    def _ask(self) -> None:
        want = self._want
        if want is None:
            return
        if not self._asker.ask(priority=want.priority, served=want.session_ids, began=self._wanted_at):
            self._refused("the GPU coordinator fails and is left alone for a while", self._asker.pause_secs)

    def _answered(self, answered: RequestAnswered) -> None:
        self._asker.asked = None
        asked, answer, now = answered.asked, answered.answer, time.monotonic()
        if isinstance(answer, Denial):
            if answer.in_doubt:
                self._unsent.append(UnsentRelease(asked.session_id, {}, now, n_tries=RELEASE_TRIES - 1))
            if self._want is not None and not answered.is_withdrawn:
                self._n_refusals += 1
                self._refused(answer.reason, self._backoff.secs(self._n_refusals))
        elif self._want is None:
            self._unsent.append(UnsentRelease(asked.session_id, {}, now))
        else:
            self._granted(asked.session_id, answer, now - asked.began, now)

    def _granted(self, session_id: str, grant: Grant, waited_secs: float, now: float) -> None:
        lease = Lease(session_id, grant.epoch, now, waited_secs, grant.coordinator)
        self._held = HeldLease(lease, look_at=now + self._coordinator.renew_secs, seen_at=now)
        self._want, self._refusal, self._n_refusals = None, "", 0
        self._post(LeaseGranted(lease))

    def _refused(self, reason: str, retry_in_secs: float) -> None:
        self._ask_at = time.monotonic() + retry_in_secs
        self._refusal = reason
        self._post(LeaseRefused(reason, retry_in_secs))

    # ---- holding ----

    def _look(self, held: HeldLease) -> None:
        try:
            taken_by = self._coordinator.renew(held.lease.session_id)
        except CoordinatorFault as error:
            taken_by = self._cannot_look(held, str(error))
        else:
            held.seen_at = time.monotonic()
        held.look_at = time.monotonic() + self._coordinator.renew_secs
        if taken_by is not None:
            log.warning("the GPU lease %d is lost: %s", held.lease.epoch, taken_by)
            held.is_lost = True
            self._tell(held, LeaseLost(held.lease, taken_by))

    def _cannot_look(self, held: HeldLease, why: str) -> str | None:
        patience_secs = self._coordinator.lost_after_secs
        if patience_secs is None or time.monotonic() - held.seen_at < patience_secs:
            log.debug("the GPU lease %d could not be looked at: %s", held.lease.epoch, why)
            return None
        return f"it could not be renewed: {why}"

    def _asked_back(self, session_id: str, requester: str) -> None:
        held = self._held
        if held is not None and held.lease.session_id == session_id:
            if not held.was_asked_back:
                held.was_asked_back = True
                self._tell(held, LeaseRecalled(held.lease, f"{requester} wants the GPU"))
        elif session_id == self._freed:
            self._publish_freed(session_id, {})  # who asks again has not heard it

    def _tell(self, held: HeldLease, event: LeaseEvent) -> None:
        if held.lease.session_id != self._given_back:
            self._post(event)

    # ---- giving back ----

    def _released(self, session_id: str, result: Mapping[str, Any]) -> None:
        held = self._held
        if held is None or held.lease.session_id != session_id:
            return  # released already
        self._held = None
        self._freed = session_id
        # At once and not when it is due: others wait for the card.
        self._unsent.append(UnsentRelease(session_id, result, time.monotonic()))
        self._send_release(self._unsent[-1])
        if held.was_asked_back:
            self._publish_freed(session_id, result)

    def _send_release(self, unsent: UnsentRelease) -> None:
        unsent.n_tries += 1
        try:
            self._coordinator.release(unsent.session_id, unsent.result)
        except CoordinatorFault as error:
            if unsent.n_tries < RELEASE_TRIES:
                unsent.at = time.monotonic() + RELEASE_AGAIN_SECS
                return
            log.warning("the GPU session %s could not be given back: %s", unsent.session_id, error)
        self._unsent.remove(unsent)

    def _finish(self) -> None:
        """Nobody asks after this: what is held, on its way or unsent is given back once."""
        self._want = None
        if self._asker.asked is not None:
            self._asker.withdraw()
            self._unsent.append(UnsentRelease(self._asker.asked.session_id, {}, 0.0))
        if self._held is not None:
            self._unsent.append(UnsentRelease(self._held.lease.session_id, {}, 0.0))
            self._held = None
        for unsent in list(self._unsent):
            unsent.n_tries = RELEASE_TRIES
            self._send_release(unsent)
        self._coordinator.close()
