from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import inference.models.derived
from inference.text_forms import answer_digest, folded

BATCH_SIZE = 500


def derive(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Fill the new columns of the generations that have a text."""
    generations = apps.get_model("inference", "Generation").objects
    batch = []
    rows = generations.exclude(text="").only("text", "text_folded", "text_digest").order_by("pk")
    for row in rows.iterator(chunk_size=BATCH_SIZE):
        row.text_folded, row.text_digest = folded(row.text), answer_digest(row.text)
        batch.append(row)
        if len(batch) == BATCH_SIZE:
            generations.bulk_update(batch, ["text_folded", "text_digest"])
            batch = []
    generations.bulk_update(batch, ["text_folded", "text_digest"])


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0007_outside_session"),
    ]

    operations = [
        migrations.AddField(
            model_name="generation",
            name="text_digest",
            field=inference.models.derived.DigestField(
                blank=True, default="", editable=False, max_length=64, source="text"
            ),
        ),
        migrations.AddField(
            model_name="generation",
            name="text_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="text"),
        ),
        migrations.RunPython(derive, migrations.RunPython.noop),
    ]
