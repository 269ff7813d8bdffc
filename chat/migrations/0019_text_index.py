"""The index of texts by trigrams: a table of its own with triggers on SQLite, indexes of pg_trgm on PostgreSQL.

On SQLite the rows that exist are indexed later, in the background (``chat/text_index/filling.py``). SQLite alters a
column by making the table anew, without its triggers: a migration that alters ``chat_conversation``, ``chat_message``
or ``inference_generation`` in this way must make them again.
"""

import logging
import sqlite3

from django.apps.registry import Apps
from django.db import DatabaseError, migrations, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

log = logging.getLogger(__name__)

TRIGRAMS_SINCE = (3, 34)  # the version of SQLite with this tokenizer
NO_ID = "0" * 32  # smaller than every UUID
# The texts are not stored a second time: what is removed is given anew. ``detail=none``: rows alone, without places.
PENDING = "CREATE TABLE chat_text_pending (kind varchar(32) PRIMARY KEY, after char(32) NOT NULL)"
IS_PENDING = "INSERT INTO chat_text_pending SELECT '{0}', '{1}' WHERE EXISTS (SELECT 1 FROM {0})"
TABLES = [
    """
CREATE VIRTUAL TABLE chat_text_grams USING fts5(
    text, content='', detail=none, tokenize='trigram case_sensitive 1')""",
    """
CREATE TABLE chat_text_source (
    id integer PRIMARY KEY, source char(32) NOT NULL UNIQUE, conversation_id char(32) NOT NULL,
    message_id char(32) NOT NULL)""",
    PENDING,
    *(IS_PENDING.format(table, NO_ID) for table in ("chat_conversation", "chat_message", "inference_generation")),
]
REMOVE = """
    INSERT INTO chat_text_grams (chat_text_grams, rowid, text)
        SELECT 'delete', id, {text} FROM chat_text_source WHERE source = old.id;
    DELETE FROM chat_text_source WHERE source = old.id;"""
ADD = """
    INSERT INTO chat_text_source (source, conversation_id, message_id) {source};
    INSERT INTO chat_text_grams (rowid, text) SELECT id, {text} FROM chat_text_source WHERE source = {id};"""
IS_CHANGED = "({old}) <> ({new}) OR NOT EXISTS (SELECT 1 FROM chat_text_source WHERE source = new.id)"


def trigger(name: str, event: str, condition: str, *statements: str) -> str:
    return f"CREATE TRIGGER {name} AFTER {event} WHEN {condition} BEGIN{''.join(statements)}\nEND"


def triggers_of(table: str, column: str, source: str) -> list[str]:
    """Return the triggers of a table whose rows have the text themselves."""
    remove, add = REMOVE.format(text=f"old.{column}"), ADD.format(text=f"new.{column}", source=source, id="new.id")
    is_changed = IS_CHANGED.format(old=f"old.{column}", new=f"new.{column}")
    return [
        trigger(f"{table}_text_added", f"INSERT ON {table}", f"new.{column} <> ''", add),
        trigger(f"{table}_text_changed", f"UPDATE OF {column} ON {table}", is_changed, remove, add),
        trigger(f"{table}_text_removed", f"DELETE ON {table}", f"old.{column} <> ''", remove),
    ]


ANSWER = "{0}.text_folded || char(10) || lower({0}.error_message)"
# Of generations that belong to a message; the message comes after its generation, which gets its text later.
OF_MESSAGE = "SELECT generation_id, conversation_id, id FROM chat_message WHERE generation_id = {}"
TRIGGERS = [
    *triggers_of("chat_conversation", "title_folded", "SELECT new.id, new.id, '' WHERE new.title_folded <> ''"),
    *triggers_of(
        "chat_message", "content_folded", "SELECT new.id, new.conversation_id, new.id WHERE new.content_folded <> ''"
    ),
    trigger(
        "chat_message_answer_added",
        "INSERT ON chat_message",
        "new.generation_id IS NOT NULL",
        """
    INSERT INTO chat_text_source (source, conversation_id, message_id)
        SELECT new.generation_id, new.conversation_id, new.id FROM inference_generation AS g
        WHERE g.id = new.generation_id AND (g.text_folded <> '' OR g.error_message <> '');""",
        """
    INSERT INTO chat_text_grams (rowid, text)
        SELECT s.id, g.text_folded || char(10) || lower(g.error_message)
        FROM chat_text_source AS s JOIN inference_generation AS g ON g.id = s.source
        WHERE s.source = new.generation_id;""",
    ),
    trigger(
        "inference_generation_text_changed",
        "UPDATE OF text_folded, error_message ON inference_generation",
        IS_CHANGED.format(old=ANSWER.format("old"), new=ANSWER.format("new")),
        REMOVE.format(text=ANSWER.format("old")),
        ADD.format(
            text=ANSWER.format("new"),
            source=OF_MESSAGE.format("new.id") + " AND (new.text_folded <> '' OR new.error_message <> '')",
            id="new.id",
        ),
    ),
    trigger(
        "inference_generation_text_removed",
        "DELETE ON inference_generation",
        "old.text_folded <> '' OR old.error_message <> ''",
        REMOVE.format(text=ANSWER.format("old")),
    ),
]
POSTGRESQL = {
    "chat_text_grams_contents": "chat_message USING gin (content_folded gin_trgm_ops)",
    "chat_text_grams_answers": "inference_generation USING gin (text_folded gin_trgm_ops)",
    "chat_text_grams_errors": "inference_generation USING gin (upper(error_message) gin_trgm_ops)",
    "chat_text_grams_titles": "chat_conversation USING gin (title_folded gin_trgm_ops)",
}


UNSUPPORTED = "INSERT INTO chat_text_pending VALUES ('', '')"


def make(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        _make_indexes(schema_editor)
        return
    is_supported = sqlite3.sqlite_version_info >= TRIGRAMS_SINCE
    for statement in (*TABLES, *TRIGGERS) if is_supported else (PENDING, UNSUPPORTED):
        schema_editor.execute(statement, params=None)


def _make_indexes(schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Make the indexes, for which PostgreSQL's package of extensions must be installed."""
    try:
        with transaction.atomic():
            schema_editor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm", params=None)
    except DatabaseError as error:
        log.warning("searches read all texts: the extension pg_trgm cannot be made error=%s", error)
        return
    for name, rows in POSTGRESQL.items():
        schema_editor.execute(f"CREATE INDEX {name} ON {rows}", params=None)


def remove(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        statements = [f"DROP INDEX IF EXISTS {name}" for name in POSTGRESQL]
    else:
        statements = [f"DROP TRIGGER IF EXISTS {statement.split()[2]}" for statement in TRIGGERS]
        statements += [f"DROP TABLE IF EXISTS {name}" for name in ("chat_text_grams", "chat_text_source")]
        statements.append("DROP TABLE chat_text_pending")
    for statement in statements:
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("chat", "0018_titles"), ("inference", "0013_lease_records")]
    operations = [migrations.RunPython(make, remove)]
