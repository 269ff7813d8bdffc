import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0013_conversation_keep"),
    ]

    operations = [
        migrations.AddField(
            model_name="conversation",
            name="family",
            field=models.UUIDField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="conversation",
            name="forked_at",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="conversation",
            name="forked_from",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="forks",
                to="chat.conversation",
            ),
        ),
        migrations.AddIndex(
            model_name="conversation",
            index=models.Index(fields=["family", "-updated_at"], name="conversation_family_updated"),
        ),
    ]
