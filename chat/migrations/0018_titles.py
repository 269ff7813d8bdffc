from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0017_rollups")]

    operations = [
        migrations.AddField("conversation", "archived", models.BooleanField(default=False)),
        migrations.AddField(
            "conversation",
            "title_source",
            models.CharField(
                choices=[("words", "words"), ("awaited", "awaited"), ("model", "model"), ("user", "user")],
                default="words",
                max_length=8,
            ),
        ),
    ]
