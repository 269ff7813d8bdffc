"""The file that brought a memory, so that a file which is gone can be forgotten.

Memories of earlier imports get theirs when their file is imported the next time.
"""

import django.db.models.deletion
from django.db import migrations, models


def brought_by(related_name: str) -> models.ForeignKey:
    return models.ForeignKey(
        blank=True,
        null=True,
        on_delete=django.db.models.deletion.SET_NULL,
        related_name=related_name,
        to="memory.importedfile",
    )


class Migration(migrations.Migration):
    dependencies = [("memory", "0007_text_index_of_every_script")]
    operations = [
        migrations.CreateModel(
            name="ImportedFile",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("path", models.TextField()),
                ("key", models.CharField(max_length=40, unique=True)),
                ("digest", models.CharField(db_index=True, max_length=64)),
                ("owner", models.CharField(blank=True, default="", max_length=64)),
                ("imported_at", models.DateTimeField(auto_now=True)),
            ],
        ),
        migrations.AddField("transcript", "file", brought_by("transcripts")),
        migrations.AddField("note", "file", brought_by("notes")),
    ]
