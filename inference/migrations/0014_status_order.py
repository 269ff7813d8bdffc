from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0013_lease_records")]

    operations = [
        migrations.AddIndex(
            "generation", models.Index(fields=["status", "-created_at"], name="generation_status_created")
        )
    ]
