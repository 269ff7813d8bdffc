"""Columns for words of every script, for contexts, and for the vectors of a new encoding.

The triggers go first, since SQLite makes the table anew; the next migration fills the columns and makes new triggers.
"""

import importlib

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import chat.rag.models

earlier = importlib.import_module("chat.rag.migrations.0002_text_index_and_changes")

SQLITE_DROP = """
DROP TRIGGER memory_passage_added;
DROP TRIGGER memory_passage_deleted;
DROP TRIGGER memory_passage_changed;
DROP TABLE memory_text;
"""
AFTER_TABLE = "made_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);\n"
REBUILD = "INSERT INTO memory_text (memory_text) VALUES ('rebuild');\n"
SQLITE_MAKE = earlier.SQLITE.partition(AFTER_TABLE)[2] + REBUILD
POSTGRESQL_DROP = """
DROP TRIGGER memory_passage_changed ON memory_passage;
ALTER TABLE memory_passage DROP COLUMN search;
"""
POSTGRESQL_MAKE = """
ALTER TABLE memory_passage
    ADD COLUMN search tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED;
CREATE INDEX memory_passage_search ON memory_passage USING gin (search);
CREATE TRIGGER memory_passage_changed AFTER UPDATE OR DELETE ON memory_passage
    FOR EACH ROW EXECUTE FUNCTION memory_passage_changed();
"""


def drop_index(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    earlier._run(schema_editor, SQLITE_DROP, POSTGRESQL_DROP)


def make_index(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    earlier._run(schema_editor, SQLITE_MAKE, POSTGRESQL_MAKE)


class Migration(migrations.Migration):
    dependencies = [("memory", "0005_folded_transcripts")]
    operations = [
        migrations.RunPython(drop_index, make_index),
        migrations.CreateModel(
            name="VectorEncoding",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("encoding", models.CharField(max_length=100)),
                ("coming", models.CharField(blank=True, default="", max_length=100)),
            ],
        ),
        migrations.AddField("passage", "context", models.TextField(blank=True, default="")),
        migrations.AddField("passage", "context_terms", models.TextField(blank=True, default="")),
        migrations.AddField("passage", "successor", models.BinaryField(null=True)),
        migrations.AddField(
            "passage",
            "terms",
            chat.rag.models.IndexFormField(blank=True, default="", editable=False, source="searched_text"),
        ),
    ]
