"""Redis protocol between coordinator and tenants: names, JSON messages, and the check of their age.

Two generations side by side. Imports nothing but the standard library, so that any program can use it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

# Version of this library in messages and answers: ``protocol``. 1, or none: its messages carry no session on the older
# channels, and tenants do not announce themselves. Both forms are accepted.
PROTOCOL = 2
FIRST_PROTOCOL = 1

# The first generation: one tenant, the transcription service, whose replies carry no names or ids.
PAUSE = "transcription_pause"
PAUSED = "transcription_paused"
FREED = "vram_freed"
RESUME = "transcription_resume"
# Keys, and channels of the same names.
STATE = "gpu_state"
OWNER = "gpu_owner"

# Number of subscriptions of residents when the coordinator last looked; expires.
RESIDENTS_SEEN = "gpu:resident"
# Set while a pause waits for the older channels' replies, which do not name their pause.
UNANSWERED = "gpu:unanswered"
# Session of a holder at an outside coordinator, which the holder itself renews: Redis may have lost the coordinator's.
HELD = "gpu:held"
# Epoch of the latest lease, so that a delayed resume of an earlier one is not sent.
EPOCH = "gpu:epoch"

# The second generation: commands to every tenant, replies by service.
COMMAND = "gpu:command"
ACKS = "gpu:ack:"
# Kinds of messages: a command, or a channel of the first generation.
PAUSES = ("pause", PAUSE)
RESUMES = ("resume", RESUME)
# A pattern for one name: subscribers by pattern are not counted among the residents.
ONLY_COMMANDS = COMMAND[:-1] + f"[{COMMAND[-1]}]"

RESIDENT = "transcription"  # uses the GPU while no lease is granted
STATE_FREE = RESIDENT
STATE_PAUSING = "pausing"
STATE_GEMMA = "gemma"
OUR_SERVICE = "gemma-service"

CLOCK_SLACK_SECS = 2.0


def ack_channel(service: str) -> str:
    return f"{ACKS}{service}"


def now_text() -> str:
    return datetime.now(UTC).isoformat()


def encode(message: Mapping[str, Any]) -> str:
    return json.dumps({**message, "protocol": PROTOCOL, "timestamp": now_text()}, separators=(",", ":"))


def protocol_of(message: Mapping[str, Any]) -> int:
    """Return the version of the sender's library."""
    value = message.get("protocol")
    return value if isinstance(value, int) and not isinstance(value, bool) else FIRST_PROTOCOL


def decode(data: bytes | str) -> dict[str, Any] | None:
    """Return the object of a message; None for anything else that other programs may publish here."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def command(name: str, *, session_id: str, requester: str, timeout_ms: int = 0) -> str:
    """Encode the command ``pause`` or ``resume``."""
    return encode({"command": name, "session_id": session_id, "requester": requester, "timeout_ms": timeout_ms})


def ack(
    ack_type: str,
    *,
    service: str,
    session_id: str,
    error: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> str:
    """Encode ``paused``, ``resumed`` or ``error``. With ``offloading`` in the metadata a second ``paused`` follows."""
    fields = {"ack_type": ack_type, "service": service, "session_id": session_id, "error": error}
    return encode(fields | {"metadata": dict(metadata or {})})


def is_fresh(message: Mapping[str, Any], since: datetime) -> bool:
    """Return whether the message was written after ``since``; one without a timestamp never counts as a reply."""
    raw = message.get("timestamp")
    try:
        at = datetime.fromtimestamp(raw, UTC) if isinstance(raw, int | float) else datetime.fromisoformat(str(raw))
        # Without a zone it is UTC or local time.
        meanings = [at] if at.tzinfo else [at.replace(tzinfo=UTC), at.astimezone(UTC)]
    except (ValueError, OverflowError, OSError):
        return False
    latest = datetime.now(UTC) + timedelta(seconds=CLOCK_SLACK_SECS)
    for at in meanings:
        # A sender without fractions of a second has cut them off.
        earliest = since if at.microsecond else since.replace(microsecond=0)
        if earliest <= at <= latest:
            return True
    return False
