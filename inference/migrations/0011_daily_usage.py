from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0010_dialogue_digests"),
    ]

    operations = [
        migrations.CreateModel(
            name="DailyUsage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("owner", models.CharField(max_length=64)),
                ("day", models.DateField()),
                ("n_generations", models.PositiveIntegerField(default=0)),
                ("n_prompt_tokens", models.PositiveBigIntegerField(default=0)),
                ("n_completion_tokens", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "verbose_name_plural": "daily usage",
                "ordering": ["-day", "owner"],
                "constraints": [models.UniqueConstraint(fields=("owner", "day"), name="daily_usage_owner_day")],
            },
        ),
    ]
