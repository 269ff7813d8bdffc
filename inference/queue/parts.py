"""Parts: generations whose results another one waits for while it is prepared.

A part is computed for its turn alone: when that is cancelled, overdue, failed or deleted, its parts are cancelled,
whatever ended it and whichever process noticed.
"""

import logging
from uuid import UUID

from inference.enums import UNFINISHED
from inference.errors import AlreadyEnded
from inference.models import Generation, Status
from inference.queue import generations

log = logging.getLogger(__name__)

# Name in ``details``: the id of the generation that waits.
PART_OF = "part_of"


def cancel_unneeded(*, turn_id: UUID | None = None) -> None:
    """Cancel the unfinished parts of turns that do not wait for them any more; with ``turn_id`` those of one turn."""
    parts = Generation.objects.filter(status__in=UNFINISHED, ephemeral=True, cancel_requested=False)
    of_turns = (
        parts.filter(details__part_of__isnull=False) if turn_id is None else parts.filter(details__part_of=str(turn_id))
    )
    turn_of = {part_id: UUID(turn) for part_id, turn in of_turns.values_list("pk", "details__part_of")}
    if not turn_of:
        return
    waiting = Generation.objects.filter(pk__in=set(turn_of.values()), status=Status.PREPARING)
    needed = set(waiting.values_list("pk", flat=True))
    for part_id, turn in turn_of.items():
        if turn not in needed:
            _cancel(part_id, turn)


def _cancel(part_id: UUID, turn: UUID) -> None:
    try:
        generations.request_cancel(generation_id=part_id)
    except (AlreadyEnded, Generation.DoesNotExist):
        return  # it ended, or was deleted with its conversation
    log.info("part cancelled with its turn generation=%s part_of=%s", part_id, turn)
