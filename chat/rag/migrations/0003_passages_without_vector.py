"""An index over the passages that wait for their vectors: they are looked for every second."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("memory", "0002_text_index_and_changes")]
    operations = [
        migrations.AddIndex(
            model_name="passage",
            index=models.Index(condition=models.Q(("embedding", None)), fields=["id"], name="passage_without_vector"),
        ),
    ]
