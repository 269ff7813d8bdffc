from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0012_list_order"),
    ]

    operations = [
        migrations.CreateModel(
            name="LeaseRecord",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("lease_epoch", models.PositiveBigIntegerField()),
                ("requester", models.CharField(max_length=64)),
                ("acquired_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-ended_at"],
                "indexes": [models.Index(fields=["-ended_at"], name="lease_record_ended")],
            },
        ),
    ]
