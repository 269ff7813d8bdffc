"""Calls of the HTTP interface within the test process, and typed answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """Status, headers and JSON object of a response."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def outcome(self) -> tuple[int, str]:
        """Status and error code, by which programs decide."""
        return self.status, self.body["error"]["code"]


class Api:
    """A client at one address, with a session if it was logged in."""

    def __init__(self, address: str = "127.0.0.1", *, enforce_csrf_checks: bool = False) -> None:
        self.client = Client(enforce_csrf_checks=enforce_csrf_checks, raise_request_exception=False)
        self._address = address

    def log_in(self, user: User) -> None:
        self.client.force_login(user)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.call("POST", path, body, headers=headers)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Answer:
        """``body``: bytes and text go as they are, everything else as JSON."""
        raw = body if isinstance(body, bytes | str) else b"" if body is None else json.dumps(body)
        response = self.client.generic(
            method, path, raw, content_type=content_type, headers=headers or {}, REMOTE_ADDR=self._address
        )
        content = response.getvalue() if response.streaming else response.content
        assert not content or response["Content-Type"].startswith(JSON), (path, response["Content-Type"], content)
        return Answer(response.status_code, response.headers, json.loads(content) if content else {})
