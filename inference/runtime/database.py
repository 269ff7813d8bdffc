"""Retries of database work: the one place that knows which errors are temporary.

Two kinds of work: a conditional move, which may be repeated whether it happened or not, and a whole transaction, which
may be repeated only when it was certainly rolled back. Knows no rows.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

T = TypeVar("T")

log = logging.getLogger(__name__)

UNAVAILABLE_ERRORS = (OperationalError, InterfaceError)
RETRY_SECS = 0.5
MAX_TRIES = 5
# A SQLite error that took longer has already waited for the lock for its whole timeout. PostgreSQL finds a deadlock
# after a second of waiting, and the transaction that it ended has to be run again.
QUICK_SECS = 1.0
FIRST_PAUSE_SECS = 0.02
# PostgreSQL: could not serialise, deadlock, lock not available.
ROLLED_BACK_STATES = {"40001", "40P01", "55P03"}


def repeat_until_done(move: Callable[[], T], *, patience_secs: float) -> T:
    """Repeat a conditional move while the database is unavailable; after ``patience_secs`` its error is raised."""
    deadline = time.monotonic() + patience_secs
    while True:
        try:
            return move()
        except UNAVAILABLE_ERRORS as error:
            if time.monotonic() > deadline:
                raise
            log.warning("database unavailable, trying again error=%s", error)
        connection.close()
        time.sleep(RETRY_SECS)


def retry_transaction(transaction: Callable[[], T]) -> T:
    """Run a transaction, and repeat it when the database rolled it back in favour of others."""
    for n_tries in range(1, MAX_TRIES):
        began = time.monotonic()
        try:
            return transaction()
        except OperationalError as error:
            has_waited = connection.vendor == "sqlite" and time.monotonic() - began >= QUICK_SECS
            if has_waited or not was_rolled_back(error) or connection.in_atomic_block:
                raise
            log.info("transaction rolled back, trying again n_tries=%d error=%s", n_tries, error)
        time.sleep(FIRST_PAUSE_SECS * 2**n_tries)
    return transaction()


def was_rolled_back(error: Exception) -> bool:
    """Return whether the database reports a rollback. After a connection lost at a commit the outcome is unknown."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(cause, "sqlstate", None) in ROLLED_BACK_STATES
