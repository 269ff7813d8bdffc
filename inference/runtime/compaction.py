"""Removal of deleted content from database files: free pages, the write-ahead log, Redis's append-only file.

Knows no rows. Every function may be repeated at any time, and returns whether no deleted content is left.
"""

import logging
import time

import redis
from django.db import connection
from django.db.backends.utils import CursorWrapper
from redis.exceptions import ResponseError

log = logging.getLogger(__name__)

# Larger files are not copied: writers would wait for longer than heartbeats may stand still. In them SQLite overwrites
# deleted content with zeros (``secure_delete``), and the operator may run VACUUM.
MAX_VACUUM_BYTES = 256 << 20
MERGE_PAGES = 1_000  # of a text index in one transaction: other writers wait for no more than that
MAX_MERGES = 10_000
REWRITE_PATIENCE_SECS = 20.0
REWRITE_POLL_SECS = 0.05


def compact_database() -> bool:
    """Compact the database file; False when a reader kept the write-ahead log from being emptied.

    Not within a transaction.
    """
    with connection.cursor() as cursor:
        if connection.vendor != "sqlite":
            cursor.execute("VACUUM")
            return True
        _merge_text_indexes(cursor)
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        [n_bytes] = cursor.fetchone()
        if n_bytes <= MAX_VACUUM_BYTES:
            cursor.execute("VACUUM")
        else:
            log.info("database too large for VACUUM n_mib=%d", n_bytes >> 20)
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        is_busy, *_ = cursor.fetchone()
        return not is_busy


def _merge_text_indexes(cursor: CursorWrapper) -> None:
    """Merge the segments of every FTS5 index into one: until then deleted words are only marked as deleted."""
    cursor.execute("SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%%USING fts5%%'")
    for (table,) in cursor.fetchall():
        name = connection.ops.quote_name(table)
        for _ in range(MAX_MERGES):
            before = _total_changes(cursor)
            # Negative: all segments, whatever their number; see "The 'merge' command" of FTS5.
            cursor.execute(f"INSERT INTO {name} ({name}, rank) VALUES ('merge', %s)", [-MERGE_PAGES])  # noqa: S608  # nosec B608  # a table's own name
            if _total_changes(cursor) - before < 2:  # nothing was left to do, see the same page
                break


def _total_changes(cursor: CursorWrapper) -> int:
    cursor.execute("SELECT total_changes()")
    return int(cursor.fetchone()[0])


def compact_redis(client: "redis.Redis[bytes]") -> bool:
    """Rewrite the append-only file, if there is one; False when the rewrite has not ended in time."""
    if not client.info("persistence").get("aof_enabled"):
        return True
    if not _waits_for_rewrite(client):  # a rewrite that began before the deletion may copy deleted content
        return False
    try:
        client.bgrewriteaof()
    except ResponseError as error:
        log.warning("append-only file of Redis cannot be rewritten from here error=%s", error)
        return True
    is_over = _waits_for_rewrite(client)
    return is_over and client.info("persistence").get("aof_last_bgrewrite_status") == "ok"


def _waits_for_rewrite(client: "redis.Redis[bytes]") -> bool:
    """Return whether no rewrite is under way, now or within the patience."""
    deadline = time.monotonic() + REWRITE_PATIENCE_SECS
    while True:
        info = client.info("persistence")
        if not (info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled")):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(REWRITE_POLL_SECS)
