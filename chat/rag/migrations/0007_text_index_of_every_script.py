"""Fills the words and contexts of stored passages, and makes the text index over them.

Vectors of before are of all-MiniLM-L6-v2 and of the text alone; the backfill replaces them.
"""

import importlib
from collections.abc import Iterator
from itertools import islice

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from chat.rag import passage_context
from chat.rag.words import index_form

earlier = importlib.import_module("chat.rag.migrations.0002_text_index_and_changes")

LEGACY_ENCODING = "all-MiniLM-L6-v2/0"
BATCH_ROWS = 500
FILL = "UPDATE memory_passage SET terms = %s, context = %s, context_terms = %s WHERE id = %s"
# Marks are parts of words: the vowel signs of Thai and of Indic scripts.
SQLITE = """
CREATE VIRTUAL TABLE memory_text USING fts5(
    terms, context_terms, content='memory_passage', content_rowid='id',
    tokenize="unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'");
INSERT INTO memory_text (memory_text) VALUES ('rebuild');
CREATE TRIGGER memory_passage_added AFTER INSERT ON memory_passage BEGIN
    INSERT INTO memory_text (rowid, terms, context_terms) VALUES (new.id, new.terms, new.context_terms);
END;
CREATE TRIGGER memory_passage_deleted AFTER DELETE ON memory_passage BEGIN
    INSERT INTO memory_text (memory_text, rowid, terms, context_terms)
        VALUES ('delete', old.id, old.terms, old.context_terms);
    INSERT INTO memory_change (passage_id) VALUES (old.id);
END;
CREATE TRIGGER memory_passage_reworded AFTER UPDATE OF terms, context_terms ON memory_passage BEGIN
    INSERT INTO memory_text (memory_text, rowid, terms, context_terms)
        VALUES ('delete', old.id, old.terms, old.context_terms);
    INSERT INTO memory_text (rowid, terms, context_terms) VALUES (new.id, new.terms, new.context_terms);
END;
CREATE TRIGGER memory_passage_changed AFTER UPDATE OF
    owner, kind, text, terms, speaker, emotion, said_at, transcript_id, embedding ON memory_passage BEGIN
    INSERT INTO memory_change (passage_id) VALUES (old.id);
END;
"""
SQLITE_BACK = """
DROP TRIGGER memory_passage_added;
DROP TRIGGER memory_passage_deleted;
DROP TRIGGER memory_passage_reworded;
DROP TRIGGER memory_passage_changed;
DROP TABLE memory_text;
"""
# The words are lexemes already: no parser, no dictionary.
POSTGRESQL = """
ALTER TABLE memory_passage
    ADD COLUMN search tsvector GENERATED ALWAYS AS (array_to_tsvector(string_to_array(terms, ' '))) STORED,
    ADD COLUMN search_context tsvector
        GENERATED ALWAYS AS (array_to_tsvector(string_to_array(context_terms, ' '))) STORED;
CREATE INDEX memory_passage_search ON memory_passage USING gin (search);
CREATE INDEX memory_passage_search_context ON memory_passage USING gin (search_context);
CREATE TRIGGER memory_passage_changed AFTER DELETE OR UPDATE OF
    owner, kind, text, terms, speaker, emotion, said_at, transcript_id, embedding ON memory_passage
    FOR EACH ROW EXECUTE FUNCTION memory_passage_changed();
"""
POSTGRESQL_BACK = """
DROP TRIGGER memory_passage_changed ON memory_passage;
ALTER TABLE memory_passage DROP COLUMN search, DROP COLUMN search_context;
"""
Filled = tuple[str, str, str, int]


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    rows = _filled(apps)
    with schema_editor.connection.cursor() as cursor:
        while batch := list(islice(rows, BATCH_ROWS)):
            cursor.executemany(FILL, batch)
    if apps.get_model("memory", "Passage").objects.exclude(embedding=None).exists():
        apps.get_model("memory", "VectorEncoding").objects.create(pk=1, encoding=LEGACY_ENCODING)


def _filled(apps: Apps) -> Iterator[Filled]:
    """Yield the new columns of all passages, which are in the order of their recordings."""
    passages = apps.get_model("memory", "Passage").objects.order_by("transcript_id", "pk")
    columns = "pk", "text", "transcript_id", "transcript__title", "segment__speaker", "note__title", "note__metadata"
    before, recording = "", None
    for pk, text, transcript, title, speaker, note_title, metadata in passages.values_list(*columns).iterator():
        if transcript is None:
            file_name = str((metadata or {}).get("file", ""))
            heading = passage_context.file_stem(file_name)
            context = passage_context.in_note(title=note_title or "", file_name=file_name)
        else:
            before = before if transcript == recording else ""
            context, heading = passage_context.in_recording(speaker=speaker or "", before=before), title
            before, recording = passage_context.spoken(speaker or "", text), transcript
        yield index_form(f"{heading}\n{text}"), context.before, context.terms, pk


def make_index(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    earlier._run(schema_editor, SQLITE, POSTGRESQL)


def drop_index(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    earlier._run(schema_editor, SQLITE_BACK, POSTGRESQL_BACK)


class Migration(migrations.Migration):
    dependencies = [("memory", "0006_words_and_contexts")]
    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.RunPython(make_index, drop_index),
    ]
