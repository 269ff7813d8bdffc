"""Keeping hand-overs for the admin and for metrics."""

import dataclasses
import logging

from django.db import DatabaseError

from inference.gpu.records.hand_over import HandOverRecord
from inference.models.gpu import HandOver

log = logging.getLogger(__name__)

KEPT = 10_000


def record_hand_over(record: HandOverRecord) -> None:
    """Store one. A database that is away costs the record, never the hand-over; the log has it then."""
    values = dataclasses.asdict(record) | {"ended_because": record.ended_because[:255]}
    try:
        row = HandOver.objects.create(**values)
        HandOver.objects.filter(pk__lte=row.pk - KEPT).delete()
    except DatabaseError as error:
        log.warning("a hand-over was not recorded (%s): %s", error, values)
