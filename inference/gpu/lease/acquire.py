"""Calls of ``acquire``, one at a time in a thread of its own, since a coordinator may take a minute to answer.

Knows the circuit breaker; the lease client decides what an answer means.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from inference.gpu.lease.request import LeaseRequest
from inference.gpu.transports.port import Coordinator, CoordinatorFault, Denial, Grant
from inference.runtime.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

MAX_SESSIONS_SENT = 16


@dataclass(frozen=True)
class AcquireCall:
    """``requested_at``: when the GPU was first requested, on the monotonic clock."""

    session_id: str
    priority: int
    session_ids: frozenset[str]
    requested_at: float


@dataclass(frozen=True)
class CallAnswered:
    """``is_withdrawn``: the call was given up, so that a denial counts as no refusal."""

    call: AcquireCall
    answer: Grant | Denial
    is_withdrawn: bool = False


@dataclass(frozen=True)
class CallWaiting:
    """The coordinator has not answered yet; ``reason`` is the event that it waits for."""

    reason: str


class AcquireCaller:
    """``start`` returns at once; ``post`` is called from the call's thread, with the answer last."""

    def __init__(
        self,
        coordinator: Coordinator,
        breaker: CircuitBreaker,
        post: Callable[[CallAnswered | CallWaiting], None],
        *,
        grant_delay_secs: float = 0.0,
    ) -> None:
        self.call: AcquireCall | None = None  # in flight
        self.fault = ""  # of the last call; empty after a grant or a refusal
        self._coordinator = coordinator
        self._breaker = breaker
        self._post = post
        self._grant_delay_secs = grant_delay_secs
        self._is_withdrawn = threading.Event()

    @property
    def pause_secs(self) -> float:
        """Seconds until the circuit breaker allows a call."""
        return self._breaker.wait_secs

    def start(self, request: LeaseRequest) -> bool:
        """Return False when the circuit breaker is open."""
        ticket = self._breaker.admit()
        if ticket is None:
            return False
        self._is_withdrawn.clear()
        session_id = f"gemma-{uuid.uuid4().hex}"
        call = AcquireCall(session_id, request.priority, request.session_ids, request.requested_at)
        self.call = call
        threading.Thread(target=self._run, args=(call, ticket), name="gpu acquire", daemon=True).start()
        return True

    def withdraw(self) -> None:
        if self.call is not None:
            self._is_withdrawn.set()
            self._coordinator.withdraw(self.call.session_id)

    def finish(self) -> None:
        """The answer of the call was taken in."""
        self.call = None

    def _run(self, call: AcquireCall, ticket: int) -> None:
        started_at = time.monotonic()
        answer: Grant | Denial
        try:
            # Stands for the residents of a simulated GPU; real ones take their time by themselves.
            if self._is_withdrawn.wait(self._grant_delay_secs):
                answer = Denial("the request was withdrawn")
            else:
                answer = self._acquire(call)
        except CoordinatorFault as error:
            self._breaker.failed(ticket)
            self.fault = str(error)
            answer = Denial(str(error), in_doubt=error.in_doubt)
        except Exception:
            # Without an answer the lease client would wait for ever and never request the GPU again.
            log.exception("acquire call failed session=%s", call.session_id)
            self._breaker.failed(ticket)
            answer = Denial("the request for the GPU failed", in_doubt=True)
        else:
            self._breaker.succeeded(ticket)
            self.fault = ""
        waited_secs = time.monotonic() - started_at
        log.debug("acquire call returned session=%s waited_secs=%.2f answer=%s", call.session_id, waited_secs, answer)
        self._post(CallAnswered(call, answer, self._is_withdrawn.is_set()))

    def _acquire(self, call: AcquireCall) -> Grant | Denial:
        return self._coordinator.acquire(
            session_id=call.session_id,
            priority=call.priority,
            metadata={"sessions": sorted(call.session_ids)[:MAX_SESSIONS_SENT]},
            on_wait=lambda reason: self._post(CallWaiting(reason)),
        )
