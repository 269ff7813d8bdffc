"""What tenants of the card send to the built-in coordinator, in both generations of its protocol."""

from dataclasses import dataclass
from typing import Any

from rest_framework import serializers

from chat.schemas import fields
from chat.schemas.chat_bodies import Body, checked
from inference.gpu.protocol import channels

MAX_SESSION_CHARS = 128
MAX_NAME_CHARS = 64
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1000, 120_000
DEFAULT_TIMEOUT_MS = 30_000


class SessionBody(Body):
    session_id = fields.Text(max_length=MAX_SESSION_CHARS)
    requester = fields.Text(max_length=MAX_NAME_CHARS, required=False)


class AcquireBody(SessionBody):
    priority = fields.Integer(min_value=1, max_value=2, required=False)
    timeout_ms = fields.Integer(min_value=MIN_TIMEOUT_MS, max_value=MAX_TIMEOUT_MS, required=False)
    metadata = serializers.DictField(required=False)


class TaskBody(Body):
    task_id = fields.Text(max_length=MAX_SESSION_CHARS)


class SessionOnlyBody(Body):
    """``/warmup`` and ``/release-session``."""

    session_id = fields.Text(max_length=MAX_SESSION_CHARS, required=False)


@dataclass(frozen=True)
class AcquireRequest:
    session_id: str
    requester: str
    priority: int
    timeout_secs: float
    renews: bool  # it promises to renew; others have the lease until they release it


def acquire_request(data: dict[str, Any]) -> AcquireRequest:
    given = checked(AcquireBody(data=data))
    return AcquireRequest(
        session_id=given["session_id"],
        requester=given.get("requester", channels.US),
        priority=given.get("priority", 1),
        timeout_secs=given.get("timeout_ms", DEFAULT_TIMEOUT_MS) / 1000,
        renews=given.get("metadata", {}).get("renews") is True,
    )


def session_of(data: dict[str, Any]) -> str:
    session_id: str = checked(SessionBody(data=data))["session_id"]
    return session_id


def task_of(data: dict[str, Any]) -> str:
    task_id: str = checked(TaskBody(data=data))["task_id"]
    return task_id


def chosen_session(data: dict[str, Any]) -> str:
    """The session a caller names; empty when it names none."""
    session_id: str = checked(SessionOnlyBody(data=data)).get("session_id", "")
    return session_id
