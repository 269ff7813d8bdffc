"""One request for the card at a time, in a thread of its own: waiting for a coordinator may take a minute.

Knows the circuit breaker and the backoff; the lease client decides what an answer means.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from inference.gpu.transports.port import Coordinator, CoordinatorFault, Denial, Grant
from inference.runtime.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

JITTER = 0.25


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th refusal in a row."""

    first_secs: float = 2.0
    longest_secs: float = 30.0
    factor: float = 1.6

    def secs(self, n_refusals: int) -> float:
        plain = min(self.longest_secs, self.first_secs * self.factor ** max(0, n_refusals - 1))
        return plain * random.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True)
class LeaseRequest:
    """What is being asked for; ``began`` is when it was first wanted."""

    session_id: str
    priority: int
    served: frozenset[str]
    began: float


@dataclass(frozen=True)
class RequestAnswered:
    """``is_withdrawn``: nobody waited for it any more, so that a denial is no refusal."""

    asked: LeaseRequest
    answer: Grant | Denial
    is_withdrawn: bool = False


@dataclass(frozen=True)
class RequestWaiting:
    """No answer yet; what it waits for."""

    reason: str


class LeaseRequester:
    """``ask`` returns at once; ``post`` is called with what comes of it, the answer last, from another thread."""

    def __init__(
        self,
        coordinator: Coordinator,
        breaker: CircuitBreaker,
        post: Callable[[RequestAnswered | RequestWaiting], None],
        *,
        grant_delay_secs: float = 0.0,
    ) -> None:
        self._coordinator = coordinator
        self._breaker = breaker
        self._post = post
        self._grant_delay_secs = grant_delay_secs
        self._is_withdrawn = threading.Event()
        self.asked: LeaseRequest | None = None  # on its way

    @property
    def pause_secs(self) -> float:
        """How long the breaker keeps calls in."""
        return self._breaker.wait_secs

    def ask(self, *, priority: int, served: frozenset[str], began: float) -> bool:
        """False: the coordinator failed too often lately and is left alone."""
        ticket = self._breaker.admit()
        if ticket is None:
            return False
        self._is_withdrawn.clear()
        asked = self.asked = LeaseRequest(f"gemma-{uuid.uuid4().hex}", priority, served, began)
        threading.Thread(target=self._run, args=(asked, ticket), name="gpu asker", daemon=True).start()
        return True

    def withdraw(self) -> None:
        if self.asked is not None:
            self._is_withdrawn.set()
            self._coordinator.withdraw(self.asked.session_id)

    def _run(self, asked: LeaseRequest, ticket: int) -> None:
        began = time.monotonic()
        answer: Grant | Denial
        try:
            # The simulated card's slow neighbour; a real one takes its time by itself.
            if self._is_withdrawn.wait(self._grant_delay_secs):
                answer = Denial("nobody needs the card any more")
            else:
                answer = self._acquire(asked)
        except CoordinatorFault as error:
            self._breaker.failed(ticket)
            answer = Denial(str(error), in_doubt=True)
        except Exception:
            # Without an answer the lease_client would wait for ever and the card never be asked for again.
            log.exception("asking for the GPU failed")
            self._breaker.failed(ticket)
            answer = Denial("asking for the GPU failed", in_doubt=True)
        else:
            self._breaker.succeeded(ticket)
        log.debug("asked for the GPU for %.2f s: %s", time.monotonic() - began, answer)
        self._post(RequestAnswered(asked, answer, self._is_withdrawn.is_set()))

    def _acquire(self, asked: LeaseRequest) -> Grant | Denial:
        return self._coordinator.acquire(
            session_id=asked.session_id,
            priority=asked.priority,
            metadata={"sessions": sorted(asked.served)[:16]},
            on_wait=lambda reason: self._post(RequestWaiting(reason)),
        )
