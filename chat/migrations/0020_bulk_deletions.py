from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0019_text_index")]

    operations = [
        migrations.CreateModel(
            name="BulkDeletion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("requested_by", models.CharField(max_length=150)),
                ("conversation_ids", models.JSONField(default=list)),
                ("user_id", models.PositiveBigIntegerField(blank=True, null=True)),
                ("n_total", models.PositiveIntegerField()),
                ("n_done", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "deletion of conversations",
                "verbose_name_plural": "deletions of conversations",
                "ordering": ["-pk"],
            },
        ),
    ]
