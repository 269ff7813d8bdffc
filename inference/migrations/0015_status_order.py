from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0014_releasing_at")]

    operations = [
        migrations.AddIndex(
            "generation", models.Index(fields=["status", "-created_at"], name="generation_status_created")
        )
    ]
