"""The text index over passages, and the list of passages that changed; triggers keep both, whoever writes.

``memory_change`` is no model: it must survive whatever empties the models' tables, or vectors held in memory would
outlive their passages. SQLite alters a column by making the table anew, without its triggers: a migration that alters
``memory_passage`` must drop them before and make them again after.
"""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

SQLITE = """
CREATE TABLE memory_change (
    id INTEGER PRIMARY KEY AUTOINCREMENT, passage_id INTEGER, made_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE VIRTUAL TABLE memory_text USING fts5(
    text, content='memory_passage', content_rowid='id', tokenize='porter unicode61 remove_diacritics 2');
CREATE TRIGGER memory_passage_added AFTER INSERT ON memory_passage BEGIN
    INSERT INTO memory_text (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER memory_passage_deleted AFTER DELETE ON memory_passage BEGIN
    INSERT INTO memory_text (memory_text, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO memory_change (passage_id) VALUES (old.id);
END;
CREATE TRIGGER memory_passage_changed AFTER UPDATE ON memory_passage BEGIN
    INSERT INTO memory_text (memory_text, rowid, text) VALUES ('delete', old.id, old.text);
    INSERT INTO memory_text (rowid, text) VALUES (new.id, new.text);
    INSERT INTO memory_change (passage_id) VALUES (old.id);
END;
"""
SQLITE_BACK = """
DROP TRIGGER memory_passage_added;
DROP TRIGGER memory_passage_deleted;
DROP TRIGGER memory_passage_changed;
DROP TABLE memory_text;
DROP TABLE memory_change;
"""
# The lock makes ids visible in the order of their numbers: it is taken before a statement draws any.
POSTGRESQL = """
CREATE TABLE memory_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, passage_id bigint, made_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE memory_passage
    ADD COLUMN search tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED;
CREATE INDEX memory_passage_search ON memory_passage USING gin (search);
CREATE FUNCTION memory_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(120282395144825);
    RETURN NULL;
END $$;
CREATE FUNCTION memory_passage_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_change (passage_id) VALUES (OLD.id);
    RETURN NULL;
END $$;
CREATE FUNCTION memory_passages_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_change (passage_id) VALUES (NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER memory_in_order BEFORE INSERT OR UPDATE OR DELETE ON memory_passage
    FOR EACH STATEMENT EXECUTE FUNCTION memory_in_order();
CREATE TRIGGER memory_passage_changed AFTER UPDATE OR DELETE ON memory_passage
    FOR EACH ROW EXECUTE FUNCTION memory_passage_changed();
CREATE TRIGGER memory_passages_gone AFTER TRUNCATE ON memory_passage
    FOR EACH STATEMENT EXECUTE FUNCTION memory_passages_gone();
"""
POSTGRESQL_BACK = """
DROP TRIGGER memory_in_order ON memory_passage;
DROP TRIGGER memory_passage_changed ON memory_passage;
DROP TRIGGER memory_passages_gone ON memory_passage;
DROP FUNCTION memory_in_order();
DROP FUNCTION memory_passage_changed();
DROP FUNCTION memory_passages_gone();
ALTER TABLE memory_passage DROP COLUMN search;
DROP TABLE memory_change;
"""


def _run(schema_editor: BaseDatabaseSchemaEditor, sqlite: str, postgresql: str) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(postgresql, params=None)
        return
    # sqlite3 takes one statement at a time; inside a trigger's body lines are indented.
    statement = ""
    for line in sqlite.strip().splitlines():
        statement += line + "\n"
        is_inside = statement.startswith("CREATE TRIGGER") and line != "END;"
        if line.endswith(";") and not is_inside:
            schema_editor.execute(statement, params=None)
            statement = ""


def forwards(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    _run(schema_editor, SQLITE, POSTGRESQL)


def backwards(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    _run(schema_editor, SQLITE_BACK, POSTGRESQL_BACK)


class Migration(migrations.Migration):
    dependencies = [("memory", "0001_initial")]
    operations = [migrations.RunPython(forwards, backwards)]
