import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0015_list_order")]

    operations = [
        migrations.AddField("conversation", "recall", models.BooleanField(default=True)),
        migrations.AddField("conversation", "n_indexed", models.PositiveIntegerField(default=0)),
        migrations.AddField("summary", "note", models.TextField(blank=True, default="")),
        migrations.CreateModel(
            name="MessagePassage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("start", models.PositiveIntegerField()),
                ("end", models.PositiveIntegerField()),
                ("terms", models.TextField(blank=True, default="")),
                ("context_terms", models.TextField(blank=True, default="")),
                ("embedding", models.BinaryField(blank=True, default=b"")),
                ("encoding", models.CharField(blank=True, default="", max_length=64)),
                (
                    "message",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="passages", to="chat.message"
                    ),
                ),
            ],
            options={
                "ordering": ["message", "start"],
                "indexes": [
                    models.Index(fields=["id"], condition=models.Q(("encoding", "")), name="message_passage_pending")
                ],
            },
        ),
    ]
