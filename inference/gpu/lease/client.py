"""The lease client: requests the GPU, renews the lease while it is held, releases it. ``state`` draws its states.

One thread owns the state; other threads post orders. Knows no runners and no transport.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inference.gpu.lease.acquire import AcquireCaller, CallAnswered, CallWaiting
from inference.gpu.lease.held import HeldLease, LeaseRenewal, RenewalWatchdog
from inference.gpu.lease.orders import (
    EndClient,
    LeaseOrder,
    PauseReceived,
    ReleaseLease,
    RequestLease,
    WithdrawRequest,
)
from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused, Post
from inference.gpu.lease.release_queue import ReleaseQueue
from inference.gpu.lease.request import Backoff, LeaseRequest
from inference.gpu.lease.state import LEASE_TRANSITIONS, REQUESTED, WITH_LEASE, LeaseState, reported_state
from inference.gpu.transports.port import Coordinator, Grant
from inference.runtime.circuit_breaker import CircuitBreaker
from inference.runtime.state_machine import StateMachine

log = logging.getLogger(__name__)

IDLE_SECS = 3600.0
FAILURE_PAUSE_SECS = 1.0


@dataclass(frozen=True)
class LeaseClientOptions:
    backoff: Backoff = field(default_factory=Backoff)
    breaker: Callable[[], CircuitBreaker] = lambda: CircuitBreaker(max_failures=3, pause_secs=30.0)
    grant_delay_secs: float = 0.0
    has_other_tenants: Callable[[], bool] = lambda: True  # called at the grant and each renewal; must not raise
    # Called with the monotonic time by which the GPU has to be left, should no renewal follow.
    extend_deadline: Callable[[float], None] = lambda until: None


class CoordinatorLeaseClient:
    """Implements ``port.LeaseClient``. ``publish_freed`` notifies the tenant that recalled the lease of its release."""

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
        self._orders: queue.SimpleQueue[LeaseOrder] = queue.SimpleQueue()
        self._breaker = options.breaker()
        self._states = StateMachine(LeaseState.IDLE, LEASE_TRANSITIONS)
        self._request = LeaseRequest(options.backoff)
        self._caller = AcquireCaller(
            coordinator, self._breaker, self._orders.put, grant_delay_secs=options.grant_delay_secs
        )
        self._renewal = LeaseRenewal(coordinator)
        self._watchdog: RenewalWatchdog | None = None
        if coordinator.lost_after_secs is not None:
            self._watchdog = RenewalWatchdog(coordinator.lost_after_secs, self._renewal_overdue)
        self._releases = ReleaseQueue(coordinator)
        self._has_other_tenants = options.has_other_tenants
        self._extend_deadline = options.extend_deadline
        self.is_wanted_elsewhere = True
        self._held: HeldLease | None = None  # in the states of WITH_LEASE
        self._freed_session = ""  # the last one whose release was sent
        self._released_session = ""  # the same, set by ``release`` itself: no event about it may follow
        self._thread = threading.Thread(target=self._run, name="gpu lease client", daemon=True)

    # ---- for any thread ----

    def begin(self) -> None:
        self._thread.start()
        if self._watchdog is not None:
            self._watchdog.begin()

    def request(self, *, priority: int, session_ids: frozenset[str]) -> None:
        self._orders.put(RequestLease(priority, session_ids))

    def withdraw(self) -> None:
        self._orders.put(WithdrawRequest())

    def release(self, lease: Lease, result: Mapping[str, Any]) -> None:
        self._released_session = lease.session_id
        self._orders.put(ReleaseLease(lease.session_id, result))

    def pause_received(self, session_id: str, requester: str) -> None:
        """A pause command for that session came over the channel that all tenants share."""
        self._orders.put(PauseReceived(session_id, requester))

    def end(self, timeout_secs: float) -> None:
        self._orders.put(EndClient())
        self._thread.join(timeout_secs)

    def describe(self) -> dict[str, Any]:
        held_lease = self._held
        return {
            "coordinator": self._coordinator.kind,
            "state": reported_state(self._states.now, is_refused=bool(self._request.reason)),
            "detail": self._request.reason,
            "breaker": str(self._breaker.state),
            "fault": self._caller.fault,
            "lease_epoch": held_lease.lease.epoch if held_lease else None,
        }

    # ---- the client's thread ----

    def _run(self) -> None:
        order: LeaseOrder | None = None
        while not isinstance(order, EndClient):
            order = None
            try:
                order = self._next_order()
                self._handle(order)
                self._do_due_work(time.monotonic())
            except Exception:
                log.exception("lease client failed order=%s", type(order).__name__)
                time.sleep(FAILURE_PAUSE_SECS)  # the same failure may come again at once
        self._finish()

    def _next_order(self) -> LeaseOrder | None:
        """Wait for an order until work is due; None when it is."""
        now = time.monotonic()
        due_times = [
            self._releases.due_at if self._caller.call is None else None,
            self._held.renew_at if self._held and self._states.now is LeaseState.HELD else None,
            self._request.attempt_at if self._may_attempt() else None,
        ]
        due_at = min((at for at in due_times if at is not None), default=now + IDLE_SECS)
        try:
            return self._orders.get(timeout=max(0.0, due_at - now))
        except queue.Empty:
            return None

    def _handle(self, order: LeaseOrder | None) -> None:
        match order:
            case RequestLease() if self._states.now not in WITH_LEASE:
                self._take_request(order, time.monotonic())
            case WithdrawRequest():
                self._withdraw(time.monotonic())
            case ReleaseLease(session_id, result):
                self._release(session_id, result, time.monotonic())
            case PauseReceived(session_id, requester):
                self._recall(session_id, requester)
            case CallWaiting(reason) if self._states.now in REQUESTED:
                self._request.reason = reason
                self._post(LeaseRefused(reason, 0.0))
            case CallAnswered():
                self._take_answer(order, time.monotonic())

    def _do_due_work(self, now: float) -> None:
        if self._caller.call is None:  # at some coordinators a release would end what the call is about to get
            self._releases.send_due(now)
        if self._held is not None and self._states.now is LeaseState.HELD and now >= self._held.renew_at:
            self._renew(self._held)
        if not self._may_attempt() or now < self._request.attempt_at:
            return
        if self._caller.start(self._request):
            self._states.move(LeaseState.ACQUIRING, now)
        else:
            reason = "the GPU coordinator fails and is left alone for a while"
            self._refuse(reason, now, retry_in_secs=self._caller.pause_secs)

    # ---- requesting ----

    def _take_request(self, order: RequestLease, now: float) -> None:
        if self._states.now not in REQUESTED:
            self._request.begin(now)
            is_idle = self._states.now is LeaseState.IDLE
            self._states.move(LeaseState.PENDING if is_idle else LeaseState.ACQUIRING, now)
        self._request.update(priority=order.priority, session_ids=order.session_ids)
        call = self._caller.call
        if call is not None and order.priority < call.priority:
            self._caller.withdraw()  # called again with the higher priority, which has its own place in the queue

    def _withdraw(self, now: float) -> None:
        self._request.withdraw(now)
        self._caller.withdraw()
        if self._states.now is LeaseState.PENDING:
            self._states.move(LeaseState.IDLE, now)
        elif self._states.now is LeaseState.ACQUIRING:
            self._states.move(LeaseState.WITHDRAWING, now)

    def _may_attempt(self) -> bool:
        # With our last release unsent, a coordinator would let us wait for ourselves.
        return self._states.now is LeaseState.PENDING and not self._releases.is_blocking

    def _take_answer(self, answered: CallAnswered, now: float) -> None:
        self._caller.finish()
        call, answer = answered.call, answered.answer
        is_wanted = self._states.now is LeaseState.ACQUIRING
        if isinstance(answer, Grant) and is_wanted and not self._renewal.is_too_late(answer, now):
            lease = Lease(call.session_id, answer.epoch, now, now - call.requested_at, answer.coordinator)
            self._states.move(LeaseState.HELD, now)
            held_lease = self._renewal.begin(lease, now if answer.not_before is None else answer.not_before)
            self._hold(held_lease)
            self._extend_deadline(self._renewal.deadline(held_lease))
            self._request.granted()
            self._post(LeaseGranted(lease))
            self.is_wanted_elsewhere = self._has_other_tenants()
            return
        self._states.move(LeaseState.PENDING if is_wanted else LeaseState.IDLE, now)
        if isinstance(answer, Grant):
            self._releases.add(call.session_id, {}, now)
            if is_wanted:
                self._refuse("the grant was not taken in time", now)
            return
        if answer.in_doubt or answer.leaves_paused:
            self._releases.add(call.session_id, {}, now, n_blocking=1)
        if is_wanted and not answered.is_withdrawn:
            self._refuse(answer.reason, now)

    def _refuse(self, reason: str, now: float, *, retry_in_secs: float | None = None) -> None:
        self._post(LeaseRefused(reason, self._request.refuse(reason, now, retry_in_secs=retry_in_secs)))

    # ---- holding ----

    def _hold(self, held_lease: HeldLease | None) -> None:
        self._held = held_lease
        if self._watchdog is not None:
            self._watchdog.watch(held_lease)

    def _renewal_overdue(self, held_lease: HeldLease) -> None:
        """Report the lease as lost, from the watchdog's thread: it may end before the renewal under way returns."""
        log.warning("gpu lease not renewed in time lease=%d", held_lease.lease.epoch)
        self._post_unless_released(held_lease, LeaseLost(held_lease.lease, "it could not be renewed in time"))

    def _renew(self, held_lease: HeldLease) -> None:
        self.is_wanted_elsewhere = self._has_other_tenants()
        reason = self._renewal.renew(held_lease)
        self._extend_deadline(self._renewal.deadline(held_lease))
        if reason is not None:
            log.warning("gpu lease lost lease=%d reason=%s", held_lease.lease.epoch, reason)
            self._states.move(LeaseState.LOST, time.monotonic())
            self._request.lost(time.monotonic())
            self._post_unless_released(held_lease, LeaseLost(held_lease.lease, reason))

    def _recall(self, session_id: str, requester: str) -> None:
        held_lease = self._held
        if held_lease is not None and held_lease.lease.session_id == session_id:
            if not held_lease.is_recalled:
                held_lease.is_recalled = True
                event = LeaseRecalled(held_lease.lease, f"{requester} wants the GPU")
                self._post_unless_released(held_lease, event)
        elif session_id == self._freed_session:
            self._publish_freed(session_id, {})  # a requester that repeats its pause has missed the first message

    def _post_unless_released(self, held_lease: HeldLease, event: LeaseEvent) -> None:
        if held_lease.lease.session_id != self._released_session:
            self._post(event)

    # ---- releasing ----

    def _release(self, session_id: str, result: Mapping[str, Any], now: float) -> None:
        held_lease = self._held
        if held_lease is None or held_lease.lease.session_id != session_id:
            return  # released already
        self._hold(None)
        self._freed_session = session_id
        self._states.move(LeaseState.IDLE, now)
        self._releases.add(session_id, result, now)
        # At once and not after the next order: other tenants wait for the GPU.
        self._releases.send_due(now)
        if held_lease.is_recalled:
            self._publish_freed(session_id, result)

    def _finish(self) -> None:
        """Make one attempt to release the lease that is held, one that a call in flight may get, and unsent ones."""
        if self._caller.call is not None:
            self._caller.withdraw()
            self._releases.add(self._caller.call.session_id, {}, 0.0)
        if self._held is not None:
            self._releases.add(self._held.lease.session_id, {}, 0.0)
        self._releases.send_rest()
        if self._watchdog is not None:
            self._watchdog.end()
        self._coordinator.close()
