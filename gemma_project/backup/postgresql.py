"""The tables of PostgreSQL in a backup: one file each, in the format of COPY, all of one moment."""

from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from gemma_project.backup.errors import BackupError

_CHUNK_BYTES = 1 << 20


def dump_tables(folder: Path) -> None:
    """Write every table, while others write to them."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for table in connection.introspection.table_names(cursor):
            query = f"COPY {_quoted(table)} TO STDOUT (FORMAT binary)"
            with (folder / f"{table}.copy").open("wb") as file, _driver(cursor).copy(query) as rows:
                file.writelines(rows)


def load_tables(folder: Path) -> None:
    """Replace the rows of every table, all or none. Raises BackupError when the tables are others."""
    files = {file.stem: file for file in folder.glob("*.copy")}
    with transaction.atomic(), connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        if set(tables) != set(files):
            different = ", ".join(sorted(set(tables) ^ set(files))[:5])
            raise BackupError(f"the tables of the backup and of the database differ: {different}")
        names = ", ".join(map(_quoted, tables))
        cursor.execute(f"TRUNCATE {names}")
        for table in tables:
            # Constraints and triggers are about rows of other tables, which may come later.
            cursor.execute(f"ALTER TABLE {_quoted(table)} DISABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        for table in tables:
            _copy_in(cursor, table, files[table])
        _set_sequences(cursor, tables)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables:
            cursor.execute(f"ALTER TABLE {_quoted(table)} ENABLE TRIGGER USER")


def _copy_in(cursor: CursorWrapper, table: str, path: Path) -> None:
    with path.open("rb") as file, _driver(cursor).copy(f"COPY {_quoted(table)} FROM STDIN (FORMAT binary)") as rows:
        while chunk := file.read(_CHUNK_BYTES):
            rows.write(chunk)


def _set_sequences(cursor: CursorWrapper, tables: list[str]) -> None:
    for table in tables:
        for sequence in connection.introspection.get_sequences(cursor, table):
            column = _quoted(sequence["column"])
            cursor.execute(
                f"SELECT setval(%s, COALESCE((SELECT MAX({column}) FROM {_quoted(table)}), 0) + 1, false)",  # noqa: S608  # nosec B608  # its own names
                [sequence["name"]],
            )


def _driver(cursor: CursorWrapper) -> Any:  # noqa: ANN401  psycopg's cursor, which is not installed everywhere
    return cursor.cursor


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
