from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0016_recall"),
    ]

    operations = [
        migrations.CreateModel(
            name="Rollup",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("span", models.CharField(choices=[("hour", "Hour"), ("day", "Day")], max_length=4)),
                ("starts_at", models.DateTimeField()),
                ("kind", models.CharField(max_length=12)),
                ("figures", models.JSONField(default=dict)),
            ],
            options={
                "ordering": ["-starts_at", "kind"],
                "constraints": [
                    models.UniqueConstraint(fields=("span", "starts_at", "kind"), name="rollup_span_start_kind")
                ],
            },
        ),
        migrations.CreateModel(
            name="RollupProgress",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("until", models.DateTimeField(null=True)),
                ("hand_over_id", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=models.Q(("pk", 1)), name="rollup_progress_one_row")],
            },
        ),
    ]
