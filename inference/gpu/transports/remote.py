"""Transport to an outside coordinator over HTTP: the second generation of its protocol, the first after a 404.

Knows paths and bodies; the lease client decides when to call and what a grant means.
"""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx

from inference.gpu.protocol import channels
from inference.gpu.transports.port import CoordinatorFault, Denial, Grant, OnWait

log = logging.getLogger(__name__)

CONNECT_SECS = 2.0
SHORT_SECS = 3.0  # every call but ``acquire``
RENEW_SECS = 1.0
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 120_000  # what the protocol allows
# A coordinator that grants at its own deadline still has to say so.
ANSWER_SECS = 2.0
Json = dict[str, Any]


class OutsideCoordinator:
    """``acquire_secs``: for the coordinator to free the GPU; ``mint`` makes a service token per call."""

    renew_secs = RENEW_SECS
    # It can grant the card to nobody else while it is away.
    lost_after_secs = None

    def __init__(
        self,
        url: str,
        *,
        acquire_secs: float,
        mint: Callable[[], str | None],
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._acquire_secs = acquire_secs
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
        if not self._is_old:
            timeout_ms = min(MAX_TIMEOUT_MS, max(MIN_TIMEOUT_MS, round(self._acquire_secs * 1000)))
            body = {
                "session_id": session_id,
                "requester": channels.US,
                "priority": priority,
                "timeout_ms": timeout_ms,
                "metadata": dict(metadata),
            }
            response = self._send("POST", "/gpu/acquire", body, wait_secs=timeout_ms / 1000 + ANSWER_SECS)
            if response.status_code != HTTPStatus.NOT_FOUND:
                return self._verdict(response, session_id)
        return self._acquire_old(session_id)

    def _verdict(self, response: httpx.Response, session_id: str) -> Grant | Denial:
        answer = self._object(response)
        if answer.get("success") is not True:
            return Denial(_text(answer.get("error")) or "the coordinator refused")
        if answer.get("session_id", session_id) != session_id:
            raise CoordinatorFault("the coordinator granted the GPU to another session")
        epoch = answer.get("lease_epoch")
        return Grant(epoch if isinstance(epoch, int) else 0, "v2")

    def _acquire_old(self, session_id: str) -> Grant | Denial:
        body = {"task_id": session_id, "messages": [], "max_tokens": 1, "temperature": 0.0}
        response = self._send("POST", "/gemma/request", body, wait_secs=self._acquire_secs + ANSWER_SECS)
        self._note_generation(is_old=response.status_code != HTTPStatus.NOT_FOUND)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:  # a refusal in this generation
            return Denial("the coordinator refused")
        answer = self._object(response)
        if answer.get("status") != "gpu_acquired":
            return Denial(_text(answer.get("message")) or "the coordinator refused")
        return Grant(0, "v1")

    def withdraw(self, session_id: str) -> None:
        """Neither generation has a withdrawal; a late grant is released."""

    def renew(self, session_id: str) -> str | None:
        status = self._object(self._send("GET", "/status" if self._is_old else "/gpu/state", None))
        if self._is_old:
            lock = status.get("lock_status")
            holder = lock.get("current_task") if isinstance(lock, dict) else None
        else:
            holder = status.get("session_id")
        if holder == session_id:
            return None
        return "another session has the GPU" if holder else "the coordinator knows nothing of our lease"

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        if self._is_old:
            response = self._send("POST", f"/gemma/release/{session_id}", dict(result))
        else:
            body = {"session_id": session_id, "requester": channels.US, "result": dict(result)}
            response = self._send("POST", "/gpu/release", body)
        if response.status_code != HTTPStatus.NOT_FOUND:  # an unknown session is released already
            self._object(response)

    def close(self) -> None:
        self._client.close()

    def _note_generation(self, *, is_old: bool) -> None:
        # A 404 in both generations may come from a proxy in front of a coordinator that is starting.
        if is_old != self._is_old:
            log.info("the GPU coordinator was detected: generation=%s", "first" if is_old else "second")
            self._is_old = is_old

    def _send(self, method: str, path: str, body: Json | None, *, wait_secs: float | None = None) -> httpx.Response:
        token = self._mint()
        headers = {"X-Service-Token": token} if token else {}
        timeout = httpx.Timeout(SHORT_SECS, connect=CONNECT_SECS, read=wait_secs or SHORT_SECS)
        try:
            return self._client.request(method, path, json=body, headers=headers, timeout=timeout)
        except httpx.TimeoutException as error:
            raise CoordinatorFault("the GPU coordinator does not answer") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            log.debug("the coordinator call failed: method=%s path=%s error=%s", method, path, error)
            raise CoordinatorFault("the GPU coordinator cannot be reached") from error

    @staticmethod
    def _object(response: httpx.Response) -> Json:
        if not response.is_success:
            raise CoordinatorFault(f"the GPU coordinator answers with status {response.status_code}")
        try:
            answer = response.json()
        except ValueError as error:
            raise CoordinatorFault("the answer of the GPU coordinator is not JSON") from error
        if not isinstance(answer, dict):
            raise CoordinatorFault("the answer of the GPU coordinator is not a JSON object")
        return answer


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
