"""State and owner of the GPU as Redis keys and messages, in the values that other services know."""

import redis

from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState


def state_of(row: GpuLedger) -> str:
    """Return ``transcription``, ``pausing``, ``gemma`` (for this service), or the name of another requester."""
    if row.state == LedgerState.PAUSING:
        return channels.STATE_PAUSING
    if row.state == LedgerState.HELD:
        return channels.STATE_GEMMA if row.requester == channels.OUR_SERVICE else row.requester
    return channels.STATE_FREE


def owner_of(row: GpuLedger) -> str:
    return row.requester if row.state == LedgerState.HELD else channels.RESIDENT


def publish(client: "redis.Redis[bytes]", row: GpuLedger) -> None:
    """Set the keys for services that start later, and notify those that listen."""
    pipe = client.pipeline(transaction=False)
    for name, value in ((channels.STATE, state_of(row)), (channels.OWNER, owner_of(row))):
        pipe.set(name, value)
        pipe.publish(name, value)
    pipe.execute()


def restore(client: "redis.Redis[bytes]", row: GpuLedger) -> None:
    """Publish again when the keys differ from the row: after a wipe, or when a process exited in between."""
    values = client.mget([channels.STATE, channels.OWNER])
    if values != [state_of(row).encode(), owner_of(row).encode()]:
        publish(client, row)
