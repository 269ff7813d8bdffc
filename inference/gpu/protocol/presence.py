"""Announcements of tenants in Redis: a resident that announces itself is never taken for a mere subscriber.

Each is a key that expires unless it is repeated. Needs nothing but a Redis client.
"""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from inference.gpu.protocol import channels

if TYPE_CHECKING:
    import redis

TENANTS = "gpu:tenants"
TENANT = "gpu:tenant:"
LEFT = "gpu:left:"
ALIVE_MS = 15_000
LEFT_MS = 120_000  # longer than any coordinator waits


@dataclass(frozen=True)
class Presence:
    """A process that uses the GPU. ``protocol``: version of its library."""

    service: str
    instance: str
    is_resident: bool
    protocol: int = channels.PROTOCOL


def announce(client: "redis.Redis[bytes]", presence: Presence) -> bool:
    """Announce a tenant; to be repeated at least every few seconds. Return whether it was announced already."""
    pipe = client.pipeline(transaction=False)
    pipe.set(TENANT + presence.instance, json.dumps(asdict(presence)), px=ALIVE_MS, get=True)
    pipe.sadd(TENANTS, presence.instance)
    return pipe.execute()[0] is not None


def withdraw(client: "redis.Redis[bytes]", presence: Presence) -> None:
    pipe = client.pipeline(transaction=False)
    pipe.delete(TENANT + presence.instance)
    pipe.srem(TENANTS, presence.instance)
    pipe.execute()


def leave(client: "redis.Redis[bytes]", presence: Presence, session_id: str) -> None:
    """Note that a resident has left the GPU for the session."""
    pipe = client.pipeline(transaction=False)
    pipe.sadd(LEFT + session_id, presence.instance)
    pipe.pexpire(LEFT + session_id, LEFT_MS)
    pipe.execute()


def have_left(client: "redis.Redis[bytes]", presence: Presence, session_id: str) -> bool:
    """Return whether every announced resident has left the GPU for the session; False also while ``presence`` itself is
    missing: then Redis has lost the others, too."""
    left = {instance.decode("utf-8", "replace") for instance in client.smembers(LEFT + session_id)}
    residents = {tenant.instance for tenant in present(client) if tenant.is_resident}
    return presence.instance in residents and residents <= left


def present(client: "redis.Redis[bytes]") -> list[Presence]:
    """Return the announced tenants; expired entries are removed."""
    instances = sorted(instance.decode("utf-8", "replace") for instance in client.smembers(TENANTS))
    if not instances:
        return []
    values = dict(zip(instances, client.mget([TENANT + instance for instance in instances]), strict=True))
    if expired := [instance for instance, data in values.items() if data is None]:
        client.srem(TENANTS, *expired)
    decoded = [_decoded(data) for data in values.values() if data is not None]
    return [presence for presence in decoded if presence is not None]


def _decoded(data: bytes) -> Presence | None:
    message = channels.decode(data)
    if message is None:
        return None
    is_resident, protocol = message.get("is_resident") is True, channels.protocol_of(message)
    return Presence(str(message.get("service")), str(message.get("instance")), is_resident, protocol)
