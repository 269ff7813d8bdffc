"""State and owner of the GPU as Redis keys and messages, in the values that other services know.

While the GPU is lent the keys expire: once every process of this installation is gone, no other would free it.
"""

import redis

from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState

EXPIRY_SLACK_SECS = 5.0
# Long enough for a process that was suspended; a new database, whose leases are counted from 1, waits for it.
EPOCH_MS = 60_000
STAGES = (LedgerState.PAUSING, LedgerState.HELD)  # in this order within one lease; then the GPU is free
# In one script: a process that was suspended in between would publish an earlier state.
PUBLISH = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for number = 2, 3 do
  local value = ARGV[number + 2]
  if ARGV[3] == '' then
    redis.call('SET', KEYS[number], value)
  else
    redis.call('SET', KEYS[number], value, 'PX', ARGV[3])
  end
  redis.call('PUBLISH', KEYS[number], value)
end
return 1
"""


def state_of(row: GpuLedger) -> str:
    """Return ``transcription``, ``pausing``, ``gemma`` (for this service), or the name of another requester."""
    if row.state == LedgerState.PAUSING or (row.state == LedgerState.FREE and row.is_emptied):
        return channels.STATE_PAUSING  # the next request in the queue is about to get it without another pause
    if row.state == LedgerState.HELD:
        return channels.STATE_GEMMA if row.requester == channels.OUR_SERVICE else row.requester
    return channels.STATE_FREE


def owner_of(row: GpuLedger) -> str:
    return row.requester if row.state == LedgerState.HELD else channels.RESIDENT


def expiry_secs(row: GpuLedger, config: CoordinatorConfig) -> float | None:
    """Return after how long the keys expire unless they are refreshed: later than the lease; None: never."""
    if state_of(row) == channels.STATE_FREE:
        return None
    is_unrenewed = row.state == LedgerState.HELD and not row.renews
    lease_secs = config.unrenewed_secs if is_unrenewed else config.ttl_secs
    return lease_secs + EXPIRY_SLACK_SECS


def publish(client: "redis.Redis[bytes]", row: GpuLedger, config: CoordinatorConfig | None = None) -> None:
    """Set the keys for services that start later, and notify those that listen. Only a free GPU needs no ``config``."""
    expires_ms = _expiry_ms(row, config)
    (state, state_value), (owner, owner_value) = _values(row)
    keys = [channels.EPOCH, state, owner]
    rank = first_rank(row.epoch) + (STAGES.index(row.state) if row.state in STAGES else len(STAGES))
    values = [rank, EPOCH_MS, expires_ms or "", state_value, owner_value]
    client.eval(PUBLISH, 3, *keys, *values)  # type: ignore[no-untyped-call]


def first_rank(epoch: int) -> int:
    """Return a number that grows with every lease and every state of one."""
    return epoch * (len(STAGES) + 1)


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
