"""Transport to an outside coordinator over HTTP: which sessions it may have, and when a release is safe.

The lease client decides when to call and what a grant means. Such a coordinator ends any lease when it gets a release,
and resumes no resident after a refusal: every session is recorded before it is requested, and a release is sent only
after a look at the state.
"""

import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import httpx
from django.db import DatabaseError

from inference.gpu.protocol import channels
from inference.gpu.transports.outside_protocol import OutsideProtocol
from inference.gpu.transports.port import CoordinatorFault, Denial, Grant, OnWait, SessionRecords

log = logging.getLogger(__name__)

RENEW_SECS = 1.0
# Residents then use the GPU after a while, whatever the coordinator has granted.
REDIS_GONE = "Redis cannot be reached, so the other programs will use the GPU"


class Holding(StrEnum):
    """Holder of the GPU, as the coordinator reports it to a session."""

    OURS = "ours"  # granted to the session
    OURS_PAUSING = "ours, pausing"  # being acquired by the session
    PAUSING = "pausing"  # being acquired by a session that is not named
    OTHER = "other"  # another session has it, or acquires it
    NOBODY = "nobody"


class Unrecorded:
    """No records of sessions, for programs that end with their session."""

    def add(self, session_id: str) -> None: ...

    def remove(self, session_id: str) -> None: ...

    def hand_over(self, session_id: str) -> None: ...

    def mark_release(self, session_id: str, *, is_under_way: bool) -> None: ...

    def is_release_under_way(self) -> bool:
        return False

    def beat(self) -> None: ...


class OutsideCoordinator:
    """``acquire_secs``: for the coordinator to free the GPU; ``mint`` makes a service token per call;
    ``is_redis_gone`` takes the session that holds the GPU, or an empty text, and returns whether the GPU has to be left
    because residents will use it without asking."""

    renew_secs = RENEW_SECS
    lost_after_secs = None  # while it does not answer, it cannot grant the GPU to another session

    def __init__(
        self,
        url: str,
        *,
        acquire_secs: float,
        mint: Callable[[], str | None],
        records: SessionRecords | None = None,
        is_redis_gone: Callable[[str], bool] = lambda session_id: False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.acquire_secs = acquire_secs
        self._records = records or Unrecorded()
        self._is_redis_gone = is_redis_gone
        self._unanswered: set[str] = set()  # sessions whose acquisition was not answered: may be granted late
        self._taken: set[str] = set()  # sessions whose lease another session was seen to have
        self._pausing_since: dict[str, float] = {}
        self._protocol = OutsideProtocol(url, acquire_secs=acquire_secs, mint=mint, transport=transport)

    @property
    def kind(self) -> str:
        return self._protocol.kind

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        if self._is_redis_gone(""):
            return Denial(REDIS_GONE)
        try:
            self._records.add(session_id)
            if self._records.is_release_under_way():
                self._records.remove(session_id)
                return Denial("the release of an earlier session is under way")
        except (DatabaseError, OSError) as error:
            raise CoordinatorFault("the session could not be recorded", in_doubt=False) from error
        self._unanswered.add(session_id)
        try:
            answer = self._protocol.acquire(session_id, priority, metadata)
        except CoordinatorFault as error:
            if not error.in_doubt:
                self._unanswered.discard(session_id)
                self._records.remove(session_id)
            raise
        self._unanswered.discard(session_id)
        return answer

    def withdraw(self, session_id: str) -> None:
        """Neither generation has a withdrawal; a late grant is released."""

    def renew(self, session_id: str) -> str | None:
        self._records.beat()
        if self._is_redis_gone(session_id):
            return REDIS_GONE
        match self.holding(session_id):
            case Holding.OURS | Holding.OURS_PAUSING:
                return None
            case Holding.OTHER:
                self._taken.add(session_id)
                return "another session has the GPU"
            case _:
                return "the coordinator knows nothing of our lease"

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        self._records.beat()
        holding = None if session_id in self._taken else self.holding(session_id)
        if holding is Holding.PAUSING:
            # Another session is being acquired, which ends, or a refusal has left the residents paused, which does not.
            now = time.monotonic()
            if now - self._pausing_since.setdefault(session_id, now) < self.acquire_secs:
                raise CoordinatorFault("the GPU coordinator pauses the residents for a session that it does not name")
        if holding is Holding.OTHER:
            log.info("not released, another session has the GPU session=%s", session_id)
        elif holding is not None:
            self.send_release(session_id, result)
        self._taken.discard(session_id)
        self._pausing_since.pop(session_id, None)
        if session_id in self._unanswered:
            self._unanswered.discard(session_id)
            self._records.hand_over(session_id)
        else:
            self._records.remove(session_id)

    def send_release(
        self, session_id: str, result: Mapping[str, Any], *, is_due: Callable[[], bool] = lambda: True
    ) -> bool:
        """Send a release without a look at the state; return whether it was sent. Raises CoordinatorFault.

        No process of this installation acquires a session meanwhile, which the release would end. ``is_due`` is called
        after they can see that, and before it is sent.
        """
        self._records.mark_release(session_id, is_under_way=True)
        is_over = True
        try:
            if not is_due():
                return False
            self._protocol.release(session_id, result)
        except CoordinatorFault as fault:
            is_over = not fault.in_doubt  # else it may still arrive
            raise
        finally:
            if is_over:
                self._records.mark_release(session_id, is_under_way=False)
        return True

    def holding(self, session_id: str) -> Holding:
        """Read the holder. Raises CoordinatorFault."""
        holder, state = self._protocol.holder()
        if holder == session_id:
            return Holding.OURS_PAUSING if state == channels.STATE_PAUSING else Holding.OURS
        if holder:
            return Holding.OTHER
        if state == channels.STATE_PAUSING:
            return Holding.PAUSING
        return Holding.NOBODY if state in (None, channels.STATE_FREE) else Holding.OTHER

    def close(self) -> None:
        self._protocol.close()
