"""Services over generations: create, enqueue, cancel, look up, wait for, delete. Keyword arguments only.

Knows neither conversations nor HTTP. The row is authoritative; the reaper repeats a wake-up message that was lost.
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


def check_capacity(*, owner: str, priority: Priority, max_of_owner: int | None = None) -> None:
    """Raise QueueFull, CallerLimit or StoreUnavailable. Cheap, for the start of a request."""
    admission.require_store()
    admission.require_capacity(owner=owner, priority=priority, max_of_owner=max_of_owner)


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
    dialogue_digest: str = "",
    capped: bool = True,
    max_of_owner: int | None = None,
) -> Generation:
    """Store a generation in the caller's transaction: queued, with a wake-up message on commit, or preparing without
    a prompt.

    ``capped`` checks the limits again inside the transaction, so that simultaneous requests cannot exceed them; raises
    QueueFull or CallerLimit. Raises KeyTaken when another request has just stored the idempotency key.
    """
    request_id = log_context.request_id() or log_context.new_request_id()
    with transaction.atomic():
        if capped:
            admission.require_capacity(owner=owner, priority=priority, max_of_owner=max_of_owner)
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
            dialogue_digest=dialogue_digest,
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
        raise KeyTaken(
            f"Another request has just stored the Idempotency-Key {generation.idempotency_key!r}."
        ) from error


def _deadline(start: datetime, timeout_secs: float | None) -> datetime | None:
    return None if timeout_secs is None else start + timedelta(seconds=timeout_secs)


def enqueue(
    *,
    generation_id: UUID,
    prompt_ids: Sequence[int],
    details: dict[str, Any] | None = None,
    follow_up_task: str | None = None,
    highest_label: int | None = None,
    n_shared: int = 0,
) -> bool:
    """Preparing -> queued, with a wake-up message on commit; False when the row is not preparing any more.

    ``highest_label`` and ``n_shared`` are the sequence parameters of those names, known only after the preparation.
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
            params=row.params | {"highest_label": highest_label, "n_shared": n_shared},
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
    """Claim the follow-up of an ended generation; False when it is done, not due or not wanted.

    To be called first in the transaction of the follow-up: a simultaneous claim waits for it, and then fails.
    """
    return Generation.objects.claim_follow_up(generation_id=generation_id)


def fail(*, generation_id: UUID, code: str, message: str) -> bool:
    """End a generation that cannot be prepared; False when it does not wait any more."""
    return terminate(generation_id, failed(code, message))


def request_cancel(*, generation_id: UUID) -> Status:
    """Cancel a generation: at once when it waits, within a step when it runs. Raises AlreadyEnded, DoesNotExist.

    Returns its status: interrupted; running until its worker has received the cancel; queued while its emitted tokens
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
                # The reaper terminates it, or the next claim does.
                if Generation.objects.waiting().filter(pk=generation_id).update(cancel_requested=True):
                    return status
        else:
            raise AlreadyEnded(f"The generation has ended already; its status is {status}.")
        # The row moved between the query and the update. This ends: only take-overs move upwards, and they are bounded.


@dataclass(frozen=True)
class QueuePosition:
    """``position`` 1 is next, apart from fairness between owners; the wait is an estimate from recent runs."""

    position: int
    wait_secs: float


def queue_position(generation_id: UUID) -> QueuePosition | None:
    """The generation's position in the queue; None when it is not queued."""
    row = Generation.objects.queued().filter(pk=generation_id).only("queued_at", "priority").first()
    if row is None or row.queued_at is None:
        return None
    position = Generation.objects.ahead_of(row.queued_at, row.priority).count() + 1
    return QueuePosition(position, admission.expected_wait_secs(position))


def set_dialogue_digests(rows: Sequence[Generation]) -> None:
    """Store the changed ``dialogue_digest`` of each row, and nothing else: some may be running."""
    Generation.objects.bulk_update(rows, ["dialogue_digest"], batch_size=100)


def raise_priority(*, generation_ids: Sequence[UUID]) -> None:
    """Give generations that still wait the priority of answers, with a wake-up message on commit."""
    for generation_id in generation_ids:
        waiting = Generation.objects.filter(pk=generation_id, status=Status.QUEUED, priority=Priority.BATCH)
        if waiting.update(priority=Priority.INTERACTIVE):
            notify_on_commit(generation_id)


def mark_continued(*, generation_id: UUID) -> None:
    """Note that the dialogue of an answer goes on after it."""
    Generation.objects.filter(pk=generation_id).update(dialogue_continued=True)


def find_by_key(*, owner: str, idempotency_key: str, request_digest: str) -> Generation | None:
    """The generation stored under this owner's key. Raises KeyReused when a different request stored it."""
    row = Generation.objects.filter(owner=owner, idempotency_key=idempotency_key).first()
    if row is not None and row.request_digest != request_digest:
        raise KeyReused("This Idempotency-Key was used for a different request.")
    return row


def wait(generation_id: UUID, timeout_secs: float) -> Generation:
    """Block until the generation has ended. Raises TimeoutError. For commands, not for requests."""
    deadline = time.monotonic() + timeout_secs
    while True:
        row = Generation.objects.get(pk=generation_id)
        if row.is_ended:
            return row
        if time.monotonic() > deadline:
            raise TimeoutError(f"Generation {generation_id} is still {row.status} after {timeout_secs:g} s.")
        time.sleep(POLL_SECS)


def delete(*, generation_ids: Sequence[UUID]) -> None:
    """Delete rows, running ones too: their worker gets a cancel, and its later writes are refused."""
    rows = list(Generation.objects.filter(pk__in=generation_ids).values_list("pk", "claim_epoch", "status"))
    Generation.objects.filter(pk__in=generation_ids).delete()

    def stop_deleted() -> None:
        for generation_id, epoch, status in rows:
            if status == Status.RUNNING:
                cancellation.publish_cancel(generation_id)
            close_log(generation_id, epoch + 1, EndEntry(index=0, status=Status.INTERRUPTED))

    transaction.on_commit(stop_deleted)
