"""HTTP client of a tenant: acquires, renews and releases a lease at a coordinator. Needs no Django."""

import logging
import os
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from inference.auth.signing import minted, signing_key
from inference.gpu.protocol.channels import PROTOCOL, STATE_FREE, protocol_of
from inference.runtime.http_calls import call, json_of, one_line, open_client

log = logging.getLogger(__name__)

SHORT_SECS = 5.0
LOOK_SECS = 1.0
RENEWALS_PER_TTL = 4
MIN_RENEW_MS, MAX_RENEW_MS = 100, 3_600_000
DEFAULT_RENEW_SECS = 2.0  # for coordinators that report no lifetime of a lease


class GpuRefused(Exception):
    """The GPU was not granted; the text names the reason."""


@dataclass(frozen=True)
class TenantLease:
    """``lost_after_secs``: without a renewal the lease may end soon after; None: it lasts until the release."""

    session_id: str
    renew_secs: float
    lost_after_secs: float | None = None


class TenantClient:
    """Implements the second generation of the protocol; keys of service tokens come from the environment."""

    def __init__(self, url: str, service: str) -> None:
        self._service = service
        self._coordinator_protocol = PROTOCOL
        self._client = open_client(url)
        self._key = signing_key(primary=_secret("JWT_SECRET_PRIMARY"), single=_secret("JWT_SECRET"))

    def acquire(self, session_id: str, *, priority: int, timeout_secs: float) -> TenantLease:
        """Wait for the GPU. Raises GpuRefused."""
        timeout_ms = round(min(120.0, max(1.0, timeout_secs)) * 1000)
        body = {"priority": priority, "timeout_ms": timeout_ms, "metadata": {"renews": True, "protocol": PROTOCOL}}
        fields = {"session_id": session_id, "requester": self._service} | body
        try:
            response = self._send("POST", "/gpu/acquire", fields, wait_secs=timeout_ms / 1000 + SHORT_SECS)
            answer = _object(response)
            if "success" not in answer:  # no refusal, which some coordinators send with an error status
                response.raise_for_status()
        except httpx.HTTPStatusError as error:
            if not error.response.is_client_error:  # an answered 4xx has granted nothing
                self.release(session_id)
            raise GpuRefused(f"the coordinator answers with status {error.response.status_code}") from error
        except httpx.ConnectError as error:
            raise GpuRefused("the coordinator cannot be reached") from error
        except (httpx.HTTPError, ValueError, OSError) as error:
            self.release(session_id)  # it may have been granted in an answer that was lost
            raise GpuRefused(f"the coordinator does not answer ({type(error).__name__})") from error
        self._note_protocol(answer)
        if answer.get("success") is not True:
            raise GpuRefused(one_line(str(answer.get("error") or "the coordinator refused")))
        within_ms = answer.get("renew_within_ms")
        # Anything else, NaN and 1e308 included, is no lifetime; a thread that waited for it would end or never renew.
        is_number = isinstance(within_ms, int | float) and not isinstance(within_ms, bool)
        if within_ms is None or not is_number or not MIN_RENEW_MS <= within_ms <= MAX_RENEW_MS:
            return TenantLease(session_id, DEFAULT_RENEW_SECS)
        renew_secs = within_ms / 1000 / RENEWALS_PER_TTL
        return TenantLease(session_id, renew_secs, lost_after_secs=within_ms / 1000 - renew_secs)

    def renew(self, lease: TenantLease) -> bool | None:
        """Renew the lease; return whether it is still ours, None without an answer."""
        body = {"session_id": lease.session_id, "requester": self._service}
        wait_secs = min(SHORT_SECS, lease.renew_secs)
        try:
            response = self._send("POST", "/gpu/renew", body, wait_secs=wait_secs)
            if response.status_code == HTTPStatus.NOT_FOUND:  # other coordinators have no renewal, but a state
                state = json_of(self._send("GET", "/gpu/state", None, wait_secs=wait_secs).raise_for_status())
                return bool(state.get("session_id") == lease.session_id and state.get("state") != STATE_FREE)
            return bool(json_of(response.raise_for_status()).get("success"))
        except (httpx.HTTPError, ValueError, AttributeError, OSError):
            return None

    def release(self, session_id: str) -> bool:
        """Release the lease; False when the coordinator did not take it, and the lease has to expire."""
        fields = {"session_id": session_id, "requester": self._service, "result": {}}
        try:
            self._send("POST", "/gpu/release", fields).raise_for_status()
        except (httpx.HTTPError, ValueError, OSError):
            return False
        return True

    def is_lent(self) -> bool | None:
        """Return whether the coordinator has granted the GPU; None: none answers. One that does not show it counts as
        one that has: its resume will follow."""
        try:
            response = self._send("GET", "/gpu/state", None, wait_secs=LOOK_SECS)
            if response.status_code != HTTPStatus.NOT_FOUND:
                return self._lends(response, "")
            response = self._send("GET", "/status", None, wait_secs=LOOK_SECS)
            return None if response.status_code == HTTPStatus.NOT_FOUND else self._lends(response, "lock_status")
        except (httpx.HTTPError, OSError):
            return None

    def _lends(self, response: httpx.Response, part: str) -> bool:
        try:
            answer = _object(response)
        except (httpx.HTTPStatusError, ValueError):
            answer = {}
        fields = answer.get(part) if part else answer
        if not isinstance(fields, dict) or not response.is_success:
            log.warning("coordinator does not show who has the GPU status=%d", response.status_code)
            return True
        return fields.get("state") != STATE_FREE

    def _note_protocol(self, answer: dict[str, Any]) -> None:
        """Log a coordinator of another version once; its answers are read in both forms."""
        protocol = protocol_of(answer)
        if protocol != self._coordinator_protocol:
            log.info("gpu coordinator has another protocol protocol=%d ours=%d", protocol, PROTOCOL)
        self._coordinator_protocol = protocol

    def close(self) -> None:
        self._client.close()

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, *, wait_secs: float = SHORT_SECS
    ) -> httpx.Response:
        headers = {"X-Service-Token": minted(self._key, self._service)} if self._key else {}
        return call(self._client, method, path, secs=wait_secs, body=body, headers=headers)


def _object(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object of an answer. Raises HTTPStatusError for an error status without one, ValueError."""
    try:
        value = json_of(response)
    except ValueError:
        response.raise_for_status()
        raise
    if not isinstance(value, dict):
        raise ValueError("the answer of the coordinator is not a JSON object")  # noqa: TRY004  as bad as no JSON
    return value


def new_session(service: str) -> str:
    return f"{service}-{uuid.uuid4().hex}"


def _secret(name: str) -> str | None:
    """Return the variable, or the content of the file that ``<name>_FILE`` names."""
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return os.environ.get(name) or None
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  one line, no need for a path object
        return file.read().strip() or None
