from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import inference.models.derived
from inference.text_forms import folded

BATCH_SIZE = 500


def derive(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    notes = apps.get_model("memory", "Note").objects
    for note in notes.order_by("pk").only("title", "body").iterator(chunk_size=BATCH_SIZE):
        notes.filter(pk=note.pk).update(title_folded=folded(note.title), body_folded=folded(note.body))


class Migration(migrations.Migration):
    dependencies = [
        ("memory", "0003_passages_without_vector"),
    ]

    operations = [
        migrations.AddField(
            model_name="note",
            name="body_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="body"),
        ),
        migrations.AddField(
            model_name="note",
            name="title_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="title"),
        ),
        migrations.RunPython(derive, migrations.RunPython.noop),
    ]
