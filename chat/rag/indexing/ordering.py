"""Transactions that add passages, one after the other, so that ids become visible in the order of their numbers.

Processes that keep vectors in memory read "everything after the last id that I know"; an id that is committed after a
higher one would never be seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

LOCK_KEY = 0x6D656D6F7279  # "memory"; one number per purpose in the whole database


@contextmanager
def writing_in_order() -> Iterator[None]:
    """A transaction that waits for other ones of this kind. SQLite's are immediate and wait anyway."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        yield
