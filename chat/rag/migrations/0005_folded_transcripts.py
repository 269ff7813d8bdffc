from typing import Any

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import inference.models.derived
from inference.text_forms import folded

BATCH_SIZE = 500
COLUMNS = {"Transcript": {"title": "title_folded"}, "Segment": {"text": "text_folded", "speaker": "speaker_folded"}}


def derive(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    for model, columns in COLUMNS.items():
        rows = apps.get_model("memory", model).objects
        batch: list[Any] = []
        for row in rows.order_by("pk").only(*columns).iterator(chunk_size=BATCH_SIZE):
            for source, target in columns.items():
                setattr(row, target, folded(getattr(row, source)))
            batch.append(row)
            if len(batch) == BATCH_SIZE:
                rows.bulk_update(batch, list(columns.values()))
                batch = []
        rows.bulk_update(batch, list(columns.values()))


class Migration(migrations.Migration):
    dependencies = [
        ("memory", "0004_folded_notes"),
    ]

    operations = [
        migrations.AddField(
            model_name="segment",
            name="speaker_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="speaker"),
        ),
        migrations.AddField(
            model_name="segment",
            name="text_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="text"),
        ),
        migrations.AddField(
            model_name="transcript",
            name="title_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="title"),
        ),
        migrations.RunPython(derive, migrations.RunPython.noop),
    ]
