from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0011_daily_usage"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="generation",
            index=models.Index(fields=["-created_at"], name="generation_created"),
        ),
    ]
