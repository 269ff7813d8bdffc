"""Ending a generation that no worker holds: cancelled while it waited, overdue, or given up.

Fence first, row second, End entry last: a former owner that still lives can write nothing after the fence, and
readers hear the end only once the row has it. What was said lies in Redis alone until then: while that is away, an end
that would lose it waits.
"""

import logging
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import F

from inference.config.tokenizer import known_vocabulary
from inference.engine.params import SamplingParams, SequenceParams
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.models.querysets import GenerationQuerySet
from inference.queue.results import Ending, end_entry, row_columns
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log
from inference.token_stream.entries import EndEntry, TokenEntry

log = logging.getLogger(__name__)

NO_PARAMS = SequenceParams(sampling=SamplingParams(seed=0))
# How long whoever ends one waits for Redis; readers give up after as long.
LOG_PATIENCE_SECS = 30.0


def terminate(generation_id: UUID, ending: Ending, *, without_log: bool = False) -> bool:
    """End a waiting generation with what it has said so far; False when it is not waiting any more.

    Raises StoreUnavailable when that cannot be read now; ``without_log`` gives it up.
    """
    return _terminate(Generation.objects.waiting().filter(pk=generation_id), ending, without_log)


def terminate_abandoned(
    generation_id: UUID, *, epoch: int, heartbeat: int, ending: Ending, without_log: bool = False
) -> bool:
    """End a running generation whose owner's heartbeat has stopped; False when the owner moved after all.

    Raises as ``conclude`` does.
    """
    rows = Generation.objects.held(generation_id=generation_id, epoch=epoch)
    return _terminate(rows.filter(heartbeat=heartbeat), ending, without_log)


def close_log(generation_id: UUID, epoch: int, end: EndEntry) -> None:
    """Tell the readers; without Redis they find the end in the row."""
    try:
        redis_log.close(shared_client(), generation_id, epoch, end)
    except StoreUnavailable as error:
        log.warning("generation %s: its readers are not told of the end: %s", generation_id, error)


def _terminate(rows: GenerationQuerySet, ending: Ending, without_log: bool) -> bool:
    row = rows.only("claim_epoch", "params").first()
    if row is None:
        return False
    epoch = row.claim_epoch + 1
    tokens = _said_so_far(row, epoch, without_log)
    columns = _columns(row, ending, tokens)
    moved = rows.filter(claim_epoch=row.claim_epoch).update(worker="", claim_epoch=F("claim_epoch") + 1, **columns)
    if moved != 1:
        log.info("generation %s: somebody else moved it before it could end as %s", row.pk, ending.status)
        return False
    close_log(row.pk, epoch, end_entry(columns, tokens))
    return True


def _columns(row: Generation, ending: Ending, tokens: list[TokenEntry]) -> dict[str, Any]:
    try:
        params = msgspec.convert(row.params, SequenceParams, strict=False)
    except msgspec.ValidationError as error:
        # Of another version of this program, say; it is not to be tried for ever.
        log.warning("generation %s ends without its parameters: %s", row.pk, error)
        params, vocabulary = NO_PARAMS, None
    else:
        vocabulary = known_vocabulary() if tokens else None
    return row_columns(ending, tokens, params, vocabulary=vocabulary)


def _said_so_far(row: Generation, epoch: int, without_log: bool) -> list[TokenEntry]:
    """What former claims have given out; nothing for a row that no worker has had."""
    if row.claim_epoch == 0:
        return []
    try:
        return redis_log.fence(shared_client(), row.pk, epoch)
    except StoreUnavailable as error:
        if not without_log:
            raise
        log.warning("generation %s ends without what it had said: %s", row.pk, error)
        return []
