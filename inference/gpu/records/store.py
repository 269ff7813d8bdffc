"""Storage of hand-overs for the admin and for metrics."""

import dataclasses
import logging

from django.db import DatabaseError

from inference.gpu.records.hand_over import HandOverRecord
from inference.models.gpu import HandOver

log = logging.getLogger(__name__)

MAX_ROWS = 10_000


def record_hand_over(record: HandOverRecord) -> None:
    """Store a record; while the database is away it is logged instead."""
    values = dataclasses.asdict(record) | {"ended_because": record.ended_because[:255]}
    try:
        row = HandOver.objects.create(**values)
        HandOver.objects.filter(pk__lte=row.pk - MAX_ROWS).delete()
    except DatabaseError as error:
        log.warning("hand-over not recorded record=%s error=%s", values, error)
