from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0004_condensed"),
    ]

    operations = [
        migrations.RemoveField(model_name="summary", name="history_digest"),
    ]
