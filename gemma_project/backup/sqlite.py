"""The SQLite database of a backup: one file, copied while others write to the original."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from django.db import connection

from gemma_project.backup.errors import BackupError

FILE = "database.sqlite3"
_PAGES_PER_STEP = 1000


def dump_sqlite(folder: Path) -> None:
    """Copy the database with its committed changes, those in the journal included."""
    connection.ensure_connection()
    with closing(sqlite3.connect(folder / FILE)) as copy:
        # In steps, between which others may write; a change in between begins the copy again.
        connection.connection.backup(copy, pages=_PAGES_PER_STEP)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a journal beside it


def load_sqlite(folder: Path) -> None:
    """Put the copy in the place of the database. No other process may use it. Raises BackupError."""
    source, target = folder / FILE, Path(str(connection.settings_dict["NAME"]))
    try:
        with closing(sqlite3.connect(source)) as copy:
            (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        raise BackupError(f"the database in the backup is damaged: {error}") from error
    if verdict != "ok":
        raise BackupError(f"the database in the backup is damaged: {verdict}")
    connection.close()
    draft = target.with_name(f".{target.name}.part")
    try:
        shutil.move(source, draft)  # DATABASE_URL may name another filesystem than that of the data
        draft.chmod(0o600)
        # The journal belongs to the old file: with the new one it would destroy it.
        for suffix in ("-wal", "-shm", "-journal"):
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BackupError(f"{target} cannot be replaced: {error.strerror or error}") from error
