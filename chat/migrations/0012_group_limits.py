import django.db.models.deletion
from django.db import migrations, models


def _limit(help_text: str) -> models.Field:
    return models.PositiveBigIntegerField(blank=True, help_text=f"{help_text}; 0: no limit", null=True)


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("chat", "0011_api_keys"),
    ]

    operations = [
        migrations.CreateModel(
            name="GroupLimits",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("requests_per_minute", _limit("requests within a minute")),
                ("tokens_per_minute", _limit("tokens of prompts and answers within a minute")),
                ("tokens_per_day", _limit("tokens of prompts and answers of a day (UTC)")),
                ("answers_at_once", _limit("answers that wait or run")),
                ("conversations", _limit("stored conversations")),
                ("memories", _limit("stored notes and lines of transcripts")),
                (
                    "group",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="limits", to="auth.group"
                    ),
                ),
            ],
            options={"verbose_name": "limits", "verbose_name_plural": "limits"},
        ),
    ]
