from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0009_thoughts"),
    ]

    operations = [
        migrations.AddField(
            model_name="generation",
            name="dialogue_continued",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="generation",
            name="dialogue_digest",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddIndex(
            model_name="generation",
            index=models.Index(
                fields=["dialogue_digest", "text_digest", "dialogue_continued", "-created_at"],
                name="generation_dialogue",
            ),
        ),
    ]
