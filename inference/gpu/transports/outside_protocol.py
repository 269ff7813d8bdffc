"""The HTTP protocol of an outside coordinator in both generations: the second, and the first after a 404.

Knows paths, bodies and statuses; ``remote`` decides when a call may be made and what is recorded before it.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import httpx

from inference.gpu.protocol import channels
from inference.gpu.transports.port import CoordinatorFault, Denial, Grant
from inference.runtime.http_calls import call, json_of, one_line, open_client

log = logging.getLogger(__name__)

CONNECT_SECS = 2.0
SHORT_SECS = 3.0  # every call but ``acquire``
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 120_000  # limits of the protocol
ANSWER_SECS = 2.0  # for the answer of a coordinator that grants at its own deadline
MAX_EPOCH = (1 << 63) - 1  # of the column that a lease's epoch is stored in
Json = dict[str, Any]


class OutsideProtocol:
    """Calls of one coordinator; ``mint`` makes a service token per call. Not for several threads at once."""

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
        self._client = open_client(url, transport=transport)

    @property
    def kind(self) -> str:
        return "v1" if self._is_old else "v2"

    def acquire(self, session_id: str, priority: int, metadata: Mapping[str, Any]) -> Grant | Denial:
        """Request the GPU and wait for the answer. Raises CoordinatorFault."""
        if not self._is_old:
            timeout_ms = min(MAX_TIMEOUT_MS, max(MIN_TIMEOUT_MS, round(self._acquire_secs * 1000)))
            body: Json = {"session_id": session_id, "requester": channels.OUR_SERVICE, "priority": priority}
            body |= {"timeout_ms": timeout_ms, "metadata": dict(metadata)}
            response = self._send("POST", "/gpu/acquire", body, wait_secs=timeout_ms / 1000 + ANSWER_SECS)
            if response.status_code != HTTPStatus.NOT_FOUND:
                return self._verdict(response, session_id)
        body = {"task_id": session_id, "messages": [], "max_tokens": 1, "temperature": 0.0}
        response = self._send("POST", "/gemma/request", body, wait_secs=self._acquire_secs + ANSWER_SECS)
        self._note_generation(is_old=response.status_code != HTTPStatus.NOT_FOUND)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:  # a refusal in this generation
            return Denial("the coordinator refused", leaves_paused=True)
        answer = self._object(response)
        if answer.get("status") != "gpu_acquired":
            return Denial(one_line(answer.get("message")) or "the coordinator refused", leaves_paused=True)
        return Grant(0, "v1")

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        """Send a release, which ends whatever lease there is. Raises CoordinatorFault."""
        if self._is_old:
            response = self._send("POST", f"/gemma/release/{session_id}", dict(result))
        else:
            body = {"session_id": session_id, "requester": channels.OUR_SERVICE, "result": dict(result)}
            response = self._send("POST", "/gpu/release", body)
        if response.status_code != HTTPStatus.NOT_FOUND:  # an unknown session is released already
            self._object(response)

    def holder(self) -> tuple[object, object]:
        """Return the session that holds the GPU, and its state. Raises CoordinatorFault."""
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

    def _verdict(self, response: httpx.Response, session_id: str) -> Grant | Denial:
        # A refusal may come with any status: both 200 and an error status are in use.
        with suppress(ValueError):
            answer = json_of(response)
            if isinstance(answer, dict) and answer.get("success") is False:
                return Denial(one_line(answer.get("error")) or "the coordinator refused", leaves_paused=True)
        answer = self._object(response)
        if answer.get("success") is not True:
            raise CoordinatorFault("the answer of the GPU coordinator is neither a grant nor a refusal")
        if answer.get("session_id", session_id) != session_id:
            raise CoordinatorFault("the coordinator granted the GPU to another session")
        epoch = answer.get("lease_epoch")
        is_usable = isinstance(epoch, int) and not isinstance(epoch, bool) and 0 <= epoch <= MAX_EPOCH
        return Grant(int(epoch or 0) if is_usable else 0, "v2")

    def _note_generation(self, *, is_old: bool) -> None:
        # A 404 in both generations may come from a proxy in front of a coordinator that is starting.
        if is_old != self._is_old:
            self._is_old = is_old
            log.info("gpu coordinator detected protocol=%s", self.kind)

    def _send(self, method: str, path: str, body: Json | None, *, wait_secs: float | None = None) -> httpx.Response:
        token = self._mint()
        headers = {"X-Service-Token": token} if token else {}
        secs = wait_secs or SHORT_SECS
        try:
            return call(self._client, method, path, secs=secs, connect_secs=CONNECT_SECS, body=body, headers=headers)
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
            answer = json_of(response)
        except ValueError as error:
            raise CoordinatorFault("the answer of the GPU coordinator is not JSON") from error
        if not isinstance(answer, dict):
            raise CoordinatorFault("the answer of the GPU coordinator is not a JSON object")
        return answer
