from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0014_versions"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="conversation",
            index=models.Index(fields=["-updated_at"], name="conversation_updated"),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(fields=["-created_at"], name="message_created"),
        ),
        migrations.AddIndex(
            model_name="retrieval",
            index=models.Index(fields=["-created_at"], name="retrieval_created"),
        ),
    ]
