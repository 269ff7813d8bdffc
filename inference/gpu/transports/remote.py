"""Transport to an outside coordinator over HTTP: the second generation of its protocol, the first after a 404.

Knows paths and bodies; the lease client decides when to call and what a grant means. Such a coordinator ends any lease
when it gets a release, and resumes no resident after a refusal: every session is recorded before it is requested, and a
release is sent only after a look at the state.
"""

import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import httpx
from django.db import DatabaseError

from inference.gpu.protocol import channels
from inference.gpu.transports.port import CoordinatorFault, Denial, Grant, OnWait, SessionRecords

log = logging.getLogger(__name__)

CONNECT_SECS = 2.0
SHORT_SECS = 3.0  # every call but ``acquire``
RENEW_SECS = 1.0
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 120_000  # limits of the protocol
ANSWER_SECS = 2.0  # for the answer of a coordinator that grants at its own deadline
# Residents then use the GPU after a while, whatever the coordinator has granted.
REDIS_GONE = "Redis cannot be reached, so the other programs will use the GPU"
Json = dict[str, Any]


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

    def beat(self) -> None: ...


class OutsideCoordinator:
    """``acquire_secs``: for the coordinator to free the GPU; ``mint`` makes a service token per call;
    ``is_redis_gone`` returns whether the GPU has to be left because residents will use it without asking."""

    renew_secs = RENEW_SECS
    lost_after_secs = None  # while it does not answer, it cannot grant the GPU to another session

    def __init__(
        self,
        url: str,
        *,
        acquire_secs: float,
        mint: Callable[[], str | None],
        records: SessionRecords | None = None,
        is_redis_gone: Callable[[], bool] = lambda: False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.acquire_secs = acquire_secs
        self._records = records or Unrecorded()
        self._is_redis_gone = is_redis_gone
        self._unanswered: set[str] = set()  # sessions whose acquisition was not answered: may be granted late
        self._taken: set[str] = set()  # sessions whose lease another session was seen to have
        self._pausing_since: dict[str, float] = {}
        self._mint = mint
        self._is_old = False  # the first generation was detected
        # No trust_env: a proxy of the environment must neither see these calls nor answer them.
        self._client = httpx.Client(base_url=url, trust_env=False, transport=transport)

    @property
    def kind(self) -> str:
        return "v1" if self._is_old else "v2"

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        if self._is_redis_gone():
            return Denial(REDIS_GONE)
        try:
            self._records.add(session_id)
        except (DatabaseError, OSError) as error:
            raise CoordinatorFault("the session could not be recorded", in_doubt=False) from error
        self._unanswered.add(session_id)
        try:
            answer = self._ask(session_id, priority, metadata)
        except CoordinatorFault as error:
            if not error.in_doubt:
                self._unanswered.discard(session_id)
                self._records.remove(session_id)
            raise
        self._unanswered.discard(session_id)
        return answer

    def _ask(self, session_id: str, priority: int, metadata: Mapping[str, Any]) -> Grant | Denial:
        if not self._is_old:
            timeout_ms = min(MAX_TIMEOUT_MS, max(MIN_TIMEOUT_MS, round(self.acquire_secs * 1000)))
            body = {
                "session_id": session_id,
                "requester": channels.OUR_SERVICE,
                "priority": priority,
                "timeout_ms": timeout_ms,
                "metadata": dict(metadata),
            }
            response = self._send("POST", "/gpu/acquire", body, wait_secs=timeout_ms / 1000 + ANSWER_SECS)
            if response.status_code != HTTPStatus.NOT_FOUND:
                return self._verdict(response, session_id)
        return self._ask_old(session_id)

    def _verdict(self, response: httpx.Response, session_id: str) -> Grant | Denial:
        refusal = _refusal(response)
        if refusal is not None:
            return refusal
        answer = self._object(response)
        if answer.get("success") is not True:
            raise CoordinatorFault("the answer of the GPU coordinator is neither a grant nor a refusal")
        if answer.get("session_id", session_id) != session_id:
            raise CoordinatorFault("the coordinator granted the GPU to another session")
        epoch = answer.get("lease_epoch")
        return Grant(epoch if isinstance(epoch, int) else 0, "v2")

    def _ask_old(self, session_id: str) -> Grant | Denial:
        body = {"task_id": session_id, "messages": [], "max_tokens": 1, "temperature": 0.0}
        response = self._send("POST", "/gemma/request", body, wait_secs=self.acquire_secs + ANSWER_SECS)
        self._note_generation(is_old=response.status_code != HTTPStatus.NOT_FOUND)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:  # a refusal in this generation
            return Denial("the coordinator refused", leaves_paused=True)
        answer = self._object(response)
        if answer.get("status") != "gpu_acquired":
            return Denial(_text(answer.get("message")) or "the coordinator refused", leaves_paused=True)
        return Grant(0, "v1")

    def withdraw(self, session_id: str) -> None:
        """Neither generation has a withdrawal; a late grant is released."""

    def renew(self, session_id: str) -> str | None:
        self._records.beat()
        if self._is_redis_gone():
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
        if session_id not in self._taken:
            self._release_if_ours(session_id, result)
        self._taken.discard(session_id)
        self._pausing_since.pop(session_id, None)
        if session_id in self._unanswered:
            self._unanswered.discard(session_id)
            self._records.hand_over(session_id)
        else:
            self._records.remove(session_id)

    def _release_if_ours(self, session_id: str, result: Mapping[str, Any]) -> None:
        holding = self.holding(session_id)
        if holding is Holding.OTHER:
            log.info("not released, another session has the GPU session=%s", session_id)
            return
        if holding is Holding.PAUSING:
            # Another session is being acquired, which ends, or a refusal has left the residents paused, which does not.
            now = time.monotonic()
            since = self._pausing_since.setdefault(session_id, now)
            if now - since < self.acquire_secs:
                raise CoordinatorFault("the GPU coordinator pauses the residents for a session that it does not name")
        self.send_release(session_id, result)

    def send_release(self, session_id: str, result: Mapping[str, Any]) -> None:
        """Send a release without a look at the state. Raises CoordinatorFault."""
        if self._is_old:
            response = self._send("POST", f"/gemma/release/{session_id}", dict(result))
        else:
            body = {"session_id": session_id, "requester": channels.OUR_SERVICE, "result": dict(result)}
            response = self._send("POST", "/gpu/release", body)
        if response.status_code != HTTPStatus.NOT_FOUND:  # an unknown session is released already
            self._object(response)

    def holding(self, session_id: str) -> Holding:
        """Read the holder. Raises CoordinatorFault."""
        holder, state = self._holder()
        if holder == session_id:
            return Holding.OURS_PAUSING if state == channels.STATE_PAUSING else Holding.OURS
        if holder:
            return Holding.OTHER
        if state == channels.STATE_PAUSING:
            return Holding.PAUSING
        return Holding.NOBODY if state in (None, channels.STATE_FREE) else Holding.OTHER

    def _holder(self) -> tuple[object, object]:
        """Return session and state."""
        if not self._is_old:
            response = self._send("GET", "/gpu/state", None)
            if response.status_code != HTTPStatus.NOT_FOUND:
                answer = self._object(response)
                return answer.get("session_id"), answer.get("state")
        response = self._send("GET", "/status", None)
        self._note_generation(is_old=response.status_code != HTTPStatus.NOT_FOUND)
        lock = self._object(response).get("lock_status")
        return (lock.get("current_task"), lock.get("state")) if isinstance(lock, dict) else (None, None)

    def close(self) -> None:
        self._client.close()

    def _note_generation(self, *, is_old: bool) -> None:
        # A 404 in both generations may come from a proxy in front of a coordinator that is starting.
        if is_old != self._is_old:
            self._is_old = is_old
            log.info("gpu coordinator detected protocol=%s", self.kind)

    def _send(self, method: str, path: str, body: Json | None, *, wait_secs: float | None = None) -> httpx.Response:
        token = self._mint()
        headers = {"X-Service-Token": token} if token else {}
        timeout = httpx.Timeout(SHORT_SECS, connect=CONNECT_SECS, read=wait_secs or SHORT_SECS)
        try:
            return self._client.request(method, path, json=body, headers=headers, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise CoordinatorFault("the GPU coordinator cannot be reached", in_doubt=False) from error
        except httpx.TimeoutException as error:
            raise CoordinatorFault("the GPU coordinator does not answer") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            log.debug("coordinator call failed method=%s path=%s error=%s", method, path, error)
            raise CoordinatorFault("the GPU coordinator cannot be reached") from error

    @staticmethod
    def _object(response: httpx.Response) -> Json:
        if not response.is_success:
            message = f"the GPU coordinator answers with status {response.status_code}"
            raise CoordinatorFault(message, in_doubt=not response.is_client_error)
        try:
            answer = response.json()
        except ValueError as error:
            raise CoordinatorFault("the answer of the GPU coordinator is not JSON") from error
        if not isinstance(answer, dict):
            raise CoordinatorFault("the answer of the GPU coordinator is not a JSON object")
        return answer


def _refusal(response: httpx.Response) -> Denial | None:
    """Return the refusal that an answer holds, at any status: both 200 and an error status are in use."""
    try:
        answer = response.json()
    except ValueError:
        return None
    if not isinstance(answer, dict) or answer.get("success") is not False:
        return None
    return Denial(_text(answer.get("error")) or "the coordinator refused", leaves_paused=True)


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
