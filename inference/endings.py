"""Ending a generation that no worker holds: cancelled while it waited, overdue, or given up.

Fence first, row second, End entry last: a former owner that still lives can write nothing after the fence, and
readers hear the end only once the row has it.
"""

import logging
from uuid import UUID

from django.db.models import F

from inference import token_log_store
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.redis_client import shared_client
from inference.results import Ending, row_columns
from inference.states import WAITING
from inference.token_log_entries import End, Token

log = logging.getLogger(__name__)


def conclude(generation_id: UUID, ending: Ending) -> bool:
    """End a waiting generation with what it has said so far; False when it is not waiting any more."""
    row = Generation.objects.waiting().filter(pk=generation_id).only("attempt", "claim_epoch").first()
    if row is None:
        return False
    epoch = row.claim_epoch + 1
    tokens = _said_so_far(row, epoch)
    ended = Generation.objects.filter(pk=generation_id, status__in=WAITING, claim_epoch=row.claim_epoch).update(
        claim_epoch=F("claim_epoch") + 1, **row_columns(ending, tokens)
    )
    if ended != 1:
        log.info("generation %s: somebody else moved it before it could end as %s", generation_id, ending.status)
        return False
    close_log(generation_id, epoch, End(index=len(tokens), status=ending.status))
    return True


def close_log(generation_id: UUID, epoch: int, end: End) -> None:
    """Tell the readers; without Redis they find the end in the row."""
    try:
        token_log_store.close(shared_client(), generation_id, epoch, end)
    except StoreUnavailable as error:
        log.warning("generation %s: its readers are not told of the end: %s", generation_id, error)


def _said_so_far(row: Generation, epoch: int) -> list[Token]:
    """What former attempts have given out; nothing for a row that no worker has had."""
    if row.attempt == 0 and row.claim_epoch == 0:
        return []
    try:
        return token_log_store.fence(shared_client(), row.pk, epoch)
    except StoreUnavailable as error:
        log.warning("generation %s ends without what it had said: %s", row.pk, error)
        return []
