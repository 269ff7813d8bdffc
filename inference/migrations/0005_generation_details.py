"""``annex`` is called ``details`` in Python; the column keeps its name, so that no SQL is run."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0004_gpu_ledger_and_hand_overs")]

    operations = [
        migrations.AlterField(
            model_name="generation",
            name="annex",
            field=models.JSONField(blank=True, db_column="annex", default=dict),
        ),
        migrations.RenameField(model_name="generation", old_name="annex", new_name="details"),
    ]
