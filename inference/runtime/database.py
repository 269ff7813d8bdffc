"""Trying again what the database did not take: the one place that knows which of its errors pass.

Knows no rows. Two kinds of callers: a conditional move, which may be repeated whatever became of it, and a whole
transaction, which may be repeated only when it surely left nothing.
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
# SQLite has waited for the lock for its whole timeout already when it takes longer than this.
QUICK_SECS = 1.0
FIRST_PAUSE_SECS = 0.02
# PostgreSQL: could not serialise, deadlock, lock not available.
ROLLED_BACK_STATES = {"40001", "40P01", "55P03"}


def repeat_until_done(move: Callable[[], T], *, patience_secs: float) -> T:
    """Make a conditional move although the database may be locked or away for a while; then raises what it says."""
    deadline = time.monotonic() + patience_secs
    while True:
        try:
            return move()
        except UNAVAILABLE_ERRORS as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the database does not take a result, trying again: %s", error)
        connection.close()
        time.sleep(RETRY_SECS)


def retry_transaction(transaction: Callable[[], T]) -> T:
    """Run a whole transaction again that lost against others: it left nothing, and the next try may win."""
    for n_tries in range(1, MAX_TRIES):
        began = time.monotonic()
        try:
            return transaction()
        except OperationalError as error:
            is_quick = time.monotonic() - began < QUICK_SECS
            if not (is_quick and was_rolled_back(error)) or connection.in_atomic_block:
                raise
            log.info("try %d lost against another transaction: %s", n_tries, error)
        time.sleep(FIRST_PAUSE_SECS * 2**n_tries)
    return transaction()


def was_rolled_back(error: Exception) -> bool:
    """Whether the database itself says so. A connection that was lost at a commit says nothing."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(cause, "sqlstate", None) in ROLLED_BACK_STATES
