"""The HTTP side of a tenant: asks a coordinator for the card, keeps the lease, gives it back. Needs no Django."""

import os
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from inference.auth.signing import minted, signing_key
from inference.gpu.protocol.channels import STATE_FREE

SHORT_SECS = 5.0
RENEWALS_PER_TTL = 4
DEFAULT_RENEW_SECS = 2.0  # for coordinators that do not say how long a lease lasts


class GpuRefused(Exception):
    """The card was not granted; the text says why."""


@dataclass(frozen=True)
class TenantLease:
    """``lost_after_secs``: so long without an answer, and the card may soon be somebody else's; None: of a coordinator
    that lends it until the release."""

    session_id: str
    renew_secs: float
    lost_after_secs: float | None = None


class TenantClient:
    """Speaks the second generation of the protocol; keys of the service token come from the environment."""

    def __init__(self, url: str, service: str) -> None:
        self._service = service
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=SHORT_SECS)
        self._key = signing_key(primary=_secret("JWT_SECRET_PRIMARY"), single=_secret("JWT_SECRET"))

    def acquire(self, session_id: str, *, priority: int, timeout_secs: float) -> TenantLease:
        """Wait for the card. Raises GpuRefused."""
        timeout_ms = round(min(120.0, max(1.0, timeout_secs)) * 1000)
        asked = {"priority": priority, "timeout_ms": timeout_ms, "metadata": {"renews": True}}
        try:
            told = self._post("/gpu/acquire", session_id, asked, wait_secs=timeout_ms / 1000 + SHORT_SECS)
        except (httpx.HTTPError, ValueError, OSError) as error:
            self.release(session_id)  # it may have been granted to an answer that got lost
            raise GpuRefused(f"the coordinator does not answer ({type(error).__name__})") from error
        if told.get("success") is not True:
            raise GpuRefused(str(told.get("error") or "the coordinator refused"))
        within_ms = told.get("renew_within_ms")
        if not isinstance(within_ms, int | float):
            return TenantLease(session_id, DEFAULT_RENEW_SECS)
        renew_secs = within_ms / 1000 / RENEWALS_PER_TTL
        return TenantLease(session_id, renew_secs, lost_after_secs=within_ms / 1000 - renew_secs)

    def keeps(self, lease: TenantLease) -> bool | None:
        """Renew: whether the card is still ours; None when nobody answers."""
        told = {"session_id": lease.session_id, "requester": self._service}
        wait_secs = min(SHORT_SECS, lease.renew_secs)
        try:
            response = self._send("POST", "/gpu/renew", told, wait_secs=wait_secs)
            if response.status_code == HTTPStatus.NOT_FOUND:  # others know no renewal, but say who has it
                state = self._send("GET", "/gpu/state", None, wait_secs=wait_secs).raise_for_status().json()
                return bool(state.get("session_id") == lease.session_id and state.get("state") != STATE_FREE)
            return bool(response.raise_for_status().json().get("success"))
        except (httpx.HTTPError, ValueError, AttributeError, OSError):
            return None

    def release(self, session_id: str) -> bool:
        """False: nobody took it; the lease ends by itself."""
        try:
            self._post("/gpu/release", session_id, {"result": {}})
        except (httpx.HTTPError, ValueError, OSError):
            return False
        return True

    def close(self) -> None:
        self._client.close()

    def _post(
        self, path: str, session_id: str, body: dict[str, Any], *, wait_secs: float = SHORT_SECS
    ) -> dict[str, Any]:
        told = {"session_id": session_id, "requester": self._service} | body
        value = self._send("POST", path, told, wait_secs=wait_secs).raise_for_status().json()
        if not isinstance(value, dict):
            raise ValueError(f"{path} answers with something else than an object")  # noqa: TRY004  as bad as no JSON
        return value

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, *, wait_secs: float = SHORT_SECS
    ) -> httpx.Response:
        headers = {"X-Service-Token": minted(self._key, self._service)} if self._key else {}
        return self._client.request(method, path, json=body, headers=headers, timeout=wait_secs)


def new_session(service: str) -> str:
    return f"{service}-{uuid.uuid4().hex}"


def _secret(name: str) -> str | None:
    """The variable, or what the file named by the variable with ``_FILE`` behind its name holds."""
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return os.environ.get(name) or None
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  one line, no need for a path object
        return file.read().strip() or None
