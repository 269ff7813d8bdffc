"""Telling everybody who has the card, in the words that the services around us know. Knows the ledger's row."""

import redis

from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState


def state_of(row: GpuLedger) -> str:
    """``transcription``, ``pausing`` or ``gemma``, as today's coordinator has it; others are called by their name."""
    if row.state == LedgerState.PAUSING:
        return channels.STATE_PAUSING
    if row.state == LedgerState.HELD:
        return channels.STATE_GEMMA if row.requester == channels.US else row.requester
    return channels.STATE_FREE


def owner_of(row: GpuLedger) -> str:
    return row.requester if row.state == LedgerState.HELD else channels.RESIDENT


def show(client: "redis.Redis[bytes]", row: GpuLedger) -> None:
    """Keys for who comes later, messages for who is there."""
    pipe = client.pipeline(transaction=False)
    for name, value in ((channels.STATE, state_of(row)), (channels.OWNER, owner_of(row))):
        pipe.set(name, value)
        pipe.publish(name, value)
    pipe.execute()


def restore(client: "redis.Redis[bytes]", row: GpuLedger) -> None:
    """The keys again, when they do not say what the row does: after a wipe, or when a process ended in between."""
    found = client.mget([channels.STATE, channels.OWNER])
    if found != [state_of(row).encode(), owner_of(row).encode()]:
        show(client, row)
