"""Serialised transactions for adding passages, so that ids become visible in ascending order.

A vector index reads all rows after the highest id it knows; an id committed after a higher one would be missed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

LOCK_KEY = 0x6D656D6F7279  # "memory"; one number per purpose in the whole database


@contextmanager
def serialised_insert() -> Iterator[None]:
    """Open a transaction that excludes others of its kind; SQLite's immediate transactions already do."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        yield
