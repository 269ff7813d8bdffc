"""A coordinator of somebody else, over HTTP: the second generation of its protocol, the first where that is a 404.

Knows paths and bodies; when to ask and what a grant means, the lease_client knows.
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
SHORT_SECS = 3.0  # everything but waiting for the card
LOOK_SECS = 1.0
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 120_000  # what the protocol allows
# A coordinator that grants at its own deadline still has to say so.
ANSWER_SECS = 2.0
Json = dict[str, Any]


class OutsideCoordinator:
    """``acquire_secs`` is what the coordinator is given to empty the card; ``mint`` makes a service token per call."""

    renew_secs = LOOK_SECS
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
        self._is_old = False  # once it has turned out so
        # trust_env: a proxy of the environment must not get to see, or answer for, the neighbours.
        self._client = httpx.Client(base_url=url, trust_env=False, transport=transport)

    @property
    def kind(self) -> str:
        return "v1" if self._is_old else "v2"

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        if not self._is_old:
            timeout_ms = min(MAX_TIMEOUT_MS, max(MIN_TIMEOUT_MS, round(self._acquire_secs * 1000)))
            asked = {
                "session_id": session_id,
                "requester": channels.US,
                "priority": priority,
                "timeout_ms": timeout_ms,
                "metadata": dict(metadata),
            }
            response = self._send("POST", "/gpu/acquire", asked, wait_secs=timeout_ms / 1000 + ANSWER_SECS)
            if response.status_code != HTTPStatus.NOT_FOUND:
                return self._verdict(response, session_id)
        return self._acquire_old(session_id)

    def _verdict(self, response: httpx.Response, session_id: str) -> Grant | Denial:
        told = self._object(response)
        if told.get("success") is not True:
            return Denial(_text(told.get("error")) or "the coordinator refused")
        if told.get("session_id", session_id) != session_id:
            raise CoordinatorFault("the coordinator granted the card to another session")
        epoch = told.get("lease_epoch")
        return Grant(epoch if isinstance(epoch, int) else 0, "v2")

    def _acquire_old(self, session_id: str) -> Grant | Denial:
        asked = {"task_id": session_id, "messages": [], "max_tokens": 1, "temperature": 0.0}
        response = self._send("POST", "/gemma/request", asked, wait_secs=self._acquire_secs + ANSWER_SECS)
        self._remember(is_old=response.status_code != HTTPStatus.NOT_FOUND)
        if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:  # its way to refuse
            return Denial("the coordinator refused")
        told = self._object(response)
        if told.get("status") != "gpu_acquired":
            return Denial(_text(told.get("message")) or "the coordinator refused")
        return Grant(0, "v1")

    def withdraw(self, session_id: str) -> None:
        """Neither protocol has a word for it; what is granted late is released."""

    def renew(self, session_id: str) -> str | None:
        told = self._object(self._send("GET", "/status" if self._is_old else "/gpu/state", None))
        if self._is_old:
            lock = told.get("lock_status")
            found = lock.get("current_task") if isinstance(lock, dict) else None
        else:
            found = told.get("session_id")
        if found == session_id:
            return None
        return "another session has the card" if found else "the coordinator knows nothing of our lease"

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        if self._is_old:
            response = self._send("POST", f"/gemma/release/{session_id}", dict(result))
        else:
            told = {"session_id": session_id, "requester": channels.US, "result": dict(result)}
            response = self._send("POST", "/gpu/release", told)
        if response.status_code != HTTPStatus.NOT_FOUND:  # a session that it does not know is released already
            self._object(response)

    def close(self) -> None:
        self._client.close()

    def _remember(self, *, is_old: bool) -> None:
        # Who knows neither is no coordinator at the moment, perhaps a proxy before one that starts.
        if is_old != self._is_old:
            log.info("the GPU coordinator speaks the %s generation of its protocol", "first" if is_old else "second")
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
            log.debug("%s %s: %s", method, path, error)
            raise CoordinatorFault("the GPU coordinator cannot be reached") from error

    @staticmethod
    def _object(response: httpx.Response) -> Json:
        if not response.is_success:
            raise CoordinatorFault(f"the GPU coordinator answers with status {response.status_code}")
        try:
            told = response.json()
        except ValueError as error:
            raise CoordinatorFault("the GPU coordinator answers with something that is no JSON") from error
        if not isinstance(told, dict):
            raise CoordinatorFault("the GPU coordinator answers with something else than an object")
        return told


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
