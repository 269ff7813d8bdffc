from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0012_group_limits"),
    ]

    operations = [
        migrations.AddField(
            model_name="conversation",
            name="keep",
            field=models.BooleanField(default=False),
        ),
    ]
