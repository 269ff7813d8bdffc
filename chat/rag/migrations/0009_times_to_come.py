"""Marks the passages that name a time to come in the text index: answers to questions about a deadline."""

from itertools import islice

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from chat.rag.time_words import DUE_FORM, TIME_FORM, time_forms

BATCH_ROWS = 500
ADD = "UPDATE memory_passage SET terms = terms || %s WHERE id = %s"


def mark(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    passages = apps.get_model("memory", "Passage").objects.filter(terms__contains=TIME_FORM).order_by("pk")
    texts = passages.values_list("pk", "text").iterator()
    rows = ((f" {DUE_FORM}", pk) for pk, text in texts if DUE_FORM in time_forms(text))
    with schema_editor.connection.cursor() as cursor:
        while batch := list(islice(rows, BATCH_ROWS)):
            cursor.executemany(ADD, batch)


def unmark(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("UPDATE memory_passage SET terms = replace(terms, %s, '')", [f" {DUE_FORM}"])


class Migration(migrations.Migration):
    dependencies = [("memory", "0008_imported_files")]
    operations = [migrations.RunPython(mark, unmark)]
