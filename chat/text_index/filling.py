"""Fills the text index of SQLite with the rows that were there before it, a batch at a time, in the background.

Rows that are written meanwhile are indexed by triggers, and so are those of a batch: by an update that changes nothing.
"""

import logging
import time

from django.db import connection, transaction

log = logging.getLogger(__name__)

INTERVAL_SECS = 60.0
BATCH_ROWS = 200  # other writers wait for no more than that
COLUMNS = {
    "chat_conversation": "title_folded",
    "chat_message": "content_folded",
    "inference_generation": "text_folded",
}


def fill_all() -> None:
    """Index batch after batch until no row is left, at half of a core's time at most."""
    began = time.monotonic()
    while fill():
        time.sleep(time.monotonic() - began)
        began = time.monotonic()


@transaction.atomic
def fill() -> bool:
    """Index the next batch; False when there is none."""
    if connection.vendor != "sqlite":
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT kind, after FROM chat_text_pending WHERE kind <> '' ORDER BY kind LIMIT 1")
        pending = cursor.fetchone()
        if pending is None:
            return False
        table, after = pending
        cursor.execute(f"SELECT id FROM {table} WHERE id > %s ORDER BY id LIMIT {BATCH_ROWS}", [after])  # noqa: S608  # nosec B608  # a table of COLUMNS
        ids = [row[0] for row in cursor.fetchall()]
        if ids:
            column, bounds = COLUMNS[table], [ids[0], ids[-1]]
            cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE id BETWEEN %s AND %s", bounds)  # noqa: S608  # nosec B608
            cursor.execute("UPDATE chat_text_pending SET after = %s WHERE kind = %s", [ids[-1], table])
        else:
            cursor.execute("DELETE FROM chat_text_pending WHERE kind = %s", [table])
            log.info("texts indexed table=%s", table)
    return True
