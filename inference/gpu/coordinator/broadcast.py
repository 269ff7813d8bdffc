"""State and owner of the GPU as Redis keys and messages, in the values that other services know.

While the GPU is lent the keys expire: once every process of this installation is gone, no other would free it.
"""

import redis

from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState

EXPIRY_SLACK_SECS = 5.0


def state_of(row: GpuLedger) -> str:
    """Return ``transcription``, ``pausing``, ``gemma`` (for this service), or the name of another requester."""
    if row.state == LedgerState.PAUSING:
        return channels.STATE_PAUSING
    if row.state == LedgerState.HELD:
        return channels.STATE_GEMMA if row.requester == channels.OUR_SERVICE else row.requester
    return channels.STATE_FREE


def owner_of(row: GpuLedger) -> str:
    return row.requester if row.state == LedgerState.HELD else channels.RESIDENT


def expiry_secs(row: GpuLedger, config: CoordinatorConfig) -> float | None:
    """Return after how long the keys expire unless they are refreshed: later than the lease; None: never."""
    if state_of(row) == channels.STATE_FREE:
        return None
    lease_secs = config.ttl_secs if row.renews or row.state == LedgerState.PAUSING else config.unrenewed_secs
    return lease_secs + EXPIRY_SLACK_SECS


def publish(client: "redis.Redis[bytes]", row: GpuLedger, config: CoordinatorConfig | None = None) -> None:
    """Set the keys for services that start later, and notify those that listen. Only a free GPU needs no ``config``."""
    expires_ms = _expiry_ms(row, config)
    pipe = client.pipeline(transaction=False)
    for name, value in _values(row):
        pipe.set(name, value, px=expires_ms)
        pipe.publish(name, value)
    pipe.execute()


def refresh(client: "redis.Redis[bytes]", row: GpuLedger, config: CoordinatorConfig) -> None:
    """Postpone the expiry; publish again when the keys differ from the row: after a wipe, or when a process exited in
    between."""
    values = client.mget([channels.STATE, channels.OWNER])
    if values != [value.encode() for _, value in _values(row)]:
        publish(client, row, config)
    elif (expires_ms := _expiry_ms(row, config)) is not None:
        pipe = client.pipeline(transaction=False)
        for name, _ in _values(row):
            pipe.pexpire(name, expires_ms)
        pipe.execute()


def _values(row: GpuLedger) -> tuple[tuple[str, str], tuple[str, str]]:
    return (channels.STATE, state_of(row)), (channels.OWNER, owner_of(row))


def _expiry_ms(row: GpuLedger, config: CoordinatorConfig | None) -> int | None:
    secs = expiry_secs(row, config or CoordinatorConfig())
    return None if secs is None else round(secs * 1000)
