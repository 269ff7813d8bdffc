"""Termination of a generation that no worker computes: cancelled while it waited, overdue, or given up.

The order is fence, row, End entry. After the fence an earlier owner cannot write any more, and readers get the End only
when the row has it. Until then the emitted tokens exist in Redis alone: a termination that would lose them waits.
"""

import logging
from typing import Any
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.models import F

from inference.config.tokenizer import known_vocabulary
from inference.engine.params import SamplingParams, SequenceParams
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.models.querysets import GenerationQuerySet
from inference.queue import usage
from inference.queue.results import Ending, end_entry, row_columns
from inference.runtime import log_context
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log
from inference.token_stream.entries import EndEntry, TokenEntry

log = logging.getLogger(__name__)

NO_PARAMS = SequenceParams(sampling=SamplingParams(seed=0))
LOG_PATIENCE_SECS = 30.0  # without Redis; after that the tokens are given up, as readers do


def terminate(generation_id: UUID, ending: Ending, *, without_log: bool = False) -> bool:
    """End a waiting generation with the tokens emitted so far; False when it does not wait any more.

    Raises StoreUnavailable when the tokens cannot be read now; ``without_log`` gives them up.
    """
    return _terminate(Generation.objects.waiting().filter(pk=generation_id), ending, without_log)


def terminate_abandoned(
    generation_id: UUID, *, epoch: int, heartbeat: int, ending: Ending, without_log: bool = False
) -> bool:
    """End a running generation whose heartbeat stands still; False when its claim or its heartbeat has moved.

    Raises as ``terminate`` does.
    """
    rows = Generation.objects.with_claim(generation_id=generation_id, epoch=epoch)
    return _terminate(rows.filter(heartbeat=heartbeat), ending, without_log)


def close_log(generation_id: UUID, epoch: int, end: EndEntry) -> None:
    """Write the End for readers; while Redis is unavailable they find the end in the row."""
    try:
        redis_log.close(shared_client(), generation_id, epoch, end)
    except StoreUnavailable as error:
        log.warning("end not written to the token log generation=%s error=%s", generation_id, error)


def _terminate(rows: GenerationQuerySet, ending: Ending, without_log: bool) -> bool:
    row = rows.only("claim_epoch", "params", "details", "owner", "n_prompt_tokens").first()
    if row is None:
        return False
    with log_context.bound_to(row):
        epoch = row.claim_epoch + 1
        tokens: list[TokenEntry] = []
        try:
            if row.claim_epoch > 0:  # else no worker has claimed the row
                tokens = redis_log.fence(shared_client(), row.pk, epoch)
        except StoreUnavailable as error:
            if not without_log:
                raise
            log.warning("terminated without its emitted tokens generation=%s error=%s", row.pk, error)
        columns = _result_columns(row, ending, tokens)
        with transaction.atomic():
            unmoved = rows.filter(claim_epoch=row.claim_epoch)
            moved = unmoved.update(worker="", claim_epoch=F("claim_epoch") + 1, **columns)
            if moved == 1 and tokens:
                usage.record_day(owner=row.owner, n_prompt_tokens=row.n_prompt_tokens, n_completion_tokens=len(tokens))
        if moved != 1:
            log.info("row moved before its termination generation=%s status=%s", row.pk, ending.status)
            return False
        log.debug("terminated generation=%s status=%s code=%s", row.pk, ending.status, ending.error_code)
        close_log(row.pk, epoch, end_entry(columns, tokens))
        return True


def _result_columns(row: Generation, ending: Ending, tokens: list[TokenEntry]) -> dict[str, Any]:
    try:
        params = msgspec.convert(row.params, SequenceParams, strict=False)
    except msgspec.ValidationError as error:
        # Stored by another version of this program, for example. Raising would repeat the attempt for ever.
        log.warning("terminated without its parameters generation=%s error=%s", row.pk, error)
        params, vocabulary = NO_PARAMS, None
    else:
        vocabulary = known_vocabulary() if tokens else None
    return row_columns(ending, tokens, params, vocabulary=vocabulary)
