"""What others may ask of generations: accept, build, cancel, look up, wait for, delete. Keyword arguments only.

Knows neither conversations nor HTTP. The row is the truth; a ring that fails is made up for by the sweep.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction
from django.utils import timezone

from inference.engine.params import SequenceParams
from inference.errors import AlreadyEnded, KeyReused, KeyTaken, StoreUnavailable
from inference.models import WAITING, Generation, Priority, Status
from inference.queue import admission, cancellation
from inference.queue.notify import notify_on_commit
from inference.queue.results import CANCELLED, failed
from inference.queue.termination import close_log, terminate
from inference.runtime import log_context
from inference.runtime.log_context import DETAILS_KEY
from inference.token_ids import pack
from inference.token_stream.entries import EndEntry

log = logging.getLogger(__name__)

POLL_SECS = 0.1


def check_capacity(*, owner: str, priority: Priority) -> None:
    """Raises QueueFull, CallerLimit or StoreUnavailable; cheap, to be asked before any work is done."""
    admission.require_store()
    admission.require_capacity(owner=owner, priority=priority)


def create(
    *,
    owner: str,
    params: SequenceParams,
    priority: Priority = Priority.INTERACTIVE,
    prompt_ids: Sequence[int] | None,
    prepare_task: str = "",
    follow_up_task: str = "",
    timeout_secs: float | None,
    session_id: str = "",
    details: dict[str, Any] | None = None,
    ephemeral: bool = False,
    cache_tags: Sequence[str] = (),
    idempotency_key: str | None = None,
    request_digest: str = "",
    capped: bool = True,
) -> Generation:
    """Store a generation in the caller's transaction: queued and rung on commit with a prompt, else preparing.

    ``capped`` counts the queue again, inside the transaction, so that simultaneous requests cannot overshoot it;
    raises QueueFull or CallerLimit. Raises KeyTaken when the idempotency key was stored a moment ago.
    """
    request_id = log_context.request_id() or log_context.new_request_id()
    with transaction.atomic():
        if capped:
            admission.require_capacity(owner=owner, priority=priority)
        now = timezone.now()
        params = msgspec.structs.replace(params, ephemeral=ephemeral, cache_tags=list(cache_tags))
        generation = Generation(
            owner=owner,
            params=msgspec.to_builtins(params, str_keys=True),
            priority=priority,
            prepare_task=prepare_task,
            follow_up_task=follow_up_task,
            timeout_secs=timeout_secs,
            deadline_at=_deadline(now, timeout_secs),
            session_id=session_id,
            details=(details or {}) | {DETAILS_KEY: request_id},
            ephemeral=ephemeral,
            idempotency_key=idempotency_key,
            request_digest=request_digest,
            status=Status.PREPARING,
        )
        if prompt_ids is not None:
            generation.prompt_ids = list(prompt_ids)
            generation.status, generation.queued_at = Status.QUEUED, now
            notify_on_commit(generation.pk)
        _insert(generation)
    log_context.remember(generation.pk, request_id)
    log.debug("generation stored generation=%s owner=%s status=%s", generation.pk, owner, generation.status)
    return generation


def _insert(generation: Generation) -> None:
    try:
        with transaction.atomic():
            generation.save(force_insert=True)
    except IntegrityError as error:
        if generation.idempotency_key is None:
            raise
        raise KeyTaken(f"the Idempotency-Key {generation.idempotency_key!r} was stored a moment ago") from error


def _deadline(start: datetime, timeout_secs: float | None) -> datetime | None:
    return None if timeout_secs is None else start + timedelta(seconds=timeout_secs)


def enqueue(
    *,
    generation_id: UUID,
    prompt_ids: Sequence[int],
    details: dict[str, Any] | None = None,
    follow_up_task: str | None = None,
    highest_label: int | None = None,
) -> bool:
    """Preparing -> queued, rung on commit; False when somebody else did it or it was cancelled meanwhile.

    ``highest_label`` is the parameter of that name, known only now.
    """
    with transaction.atomic():
        preparing = Generation.objects.filter(pk=generation_id, status=Status.PREPARING)
        row = preparing.only("timeout_secs", "params", "details").first()
        if row is None:
            return False
        now = timezone.now()
        columns: dict[str, Any] = {} if follow_up_task is None else {"follow_up_task": follow_up_task}
        if details is not None:
            columns["details"] = details | {DETAILS_KEY: log_context.stored_request_id(row)}
        moved = preparing.update(
            status=Status.QUEUED,
            prompt=pack(prompt_ids),
            n_prompt_tokens=len(prompt_ids),
            queued_at=now,
            deadline_at=_deadline(now, row.timeout_secs),
            params=row.params | {"highest_label": highest_label},
            **columns,
        )
        if moved == 1:
            notify_on_commit(generation_id)
        return moved == 1


@contextmanager
def log_lines_of(generation_id: UUID) -> Iterator[None]:
    """``log_context.bound_to`` for a row that has not been loaded."""
    row = Generation.objects.filter(pk=generation_id).only("details").first()
    with log_context.bound(request=log_context.stored_request_id(row) if row else "", generation=generation_id):
        yield


def claim_follow_up(*, generation_id: UUID) -> bool:
    """Take over what must follow an ended generation; False when it is done, not due yet or nobody's business.

    To be called first in the transaction that does it: whoever comes at the same time waits, and then finds it done.
    """
    return Generation.objects.claim_follow_up(generation_id=generation_id)


def fail(*, generation_id: UUID, code: str, message: str) -> bool:
    """End a generation that cannot be prepared; False when it is no longer waiting."""
    return terminate(generation_id, failed(code, message))


def request_cancel(*, generation_id: UUID) -> Status:
    """Stop a generation: at once when it waits, within a step when it runs. Raises AlreadyEnded, DoesNotExist.

    Returns the status it has now: interrupted; running while its worker is being told; queued while what it had said
    cannot be read.
    """
    while True:
        status = Status(Generation.objects.values_list("status", flat=True).get(pk=generation_id))
        if status is Status.RUNNING:
            if Generation.objects.running().filter(pk=generation_id).update(cancel_requested=True):
                cancellation.publish_cancel(generation_id)
                return status
        elif status in WAITING:
            try:
                if terminate(generation_id, CANCELLED):
                    return CANCELLED.status
            except StoreUnavailable:
                # The sweep ends it, or whoever claims it.
                if Generation.objects.waiting().filter(pk=generation_id).update(cancel_requested=True):
                    return status
        else:
            raise AlreadyEnded(f"the generation is {status} already")
        # It moved between the look and the update; statuses run downwards but for bounded take-overs.


@dataclass(frozen=True)
class QueuePosition:
    """``position`` 1 is next but for fairness between owners; the wait is what the last runs let expect."""

    position: int
    wait_secs: float


def queue_position(generation_id: UUID) -> QueuePosition | None:
    """Where in the queue it stands; None when it does not wait there."""
    row = Generation.objects.queued().filter(pk=generation_id).only("queued_at", "priority").first()
    if row is None or row.queued_at is None:
        return None
    position = Generation.objects.ahead_of(row.queued_at, row.priority).count() + 1
    return QueuePosition(position, admission.expected_wait_secs(position))


def find_by_key(*, owner: str, idempotency_key: str, request_digest: str) -> Generation | None:
    """The generation that this owner's key stands for; raises KeyReused when it was made by another request."""
    row = Generation.objects.filter(owner=owner, idempotency_key=idempotency_key).first()
    if row is not None and row.request_digest != request_digest:
        raise KeyReused("this Idempotency-Key was used for a different request")
    return row


def wait(generation_id: UUID, timeout_secs: float) -> Generation:
    """Block until the generation has ended; raises TimeoutError. For commands, not for requests."""
    deadline = time.monotonic() + timeout_secs
    while True:
        row = Generation.objects.get(pk=generation_id)
        if row.is_ended:
            return row
        if time.monotonic() > deadline:
            raise TimeoutError(f"generation {generation_id} is still {row.status} after {timeout_secs:g} s")
        time.sleep(POLL_SECS)


def delete(*, generation_ids: Sequence[UUID]) -> None:
    """Delete rows, running ones too: their worker is told, and is refused whatever it still writes."""
    rows = list(Generation.objects.filter(pk__in=generation_ids).values_list("pk", "claim_epoch", "status"))
    Generation.objects.filter(pk__in=generation_ids).delete()
    transaction.on_commit(lambda: _let_go(rows))


def _let_go(rows: list[tuple[UUID, int, str]]) -> None:
    for generation_id, epoch, status in rows:
        if status == Status.RUNNING:
            cancellation.publish_cancel(generation_id)
        close_log(generation_id, epoch + 1, EndEntry(index=0, status=Status.INTERRUPTED))
