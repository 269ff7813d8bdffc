from typing import Any

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import inference.models.derived
from inference.text_forms import answer_digest, compared, digest, folded

BATCH_SIZE = 500
COLUMNS = ["content_folded", "content_digest", "history_digest"]


def derive(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Fill the new columns, and renew ``history_digest``, which covers the answers since this migration."""
    conversations = apps.get_model("chat", "Conversation").objects
    messages = apps.get_model("chat", "Message").objects
    rows = conversations.order_by("pk").only("title", "system_prompt")
    for conversation in rows.iterator(chunk_size=BATCH_SIZE):
        if conversation.title:
            conversations.filter(pk=conversation.pk).update(title_folded=folded(conversation.title))
        dialogue = list(
            messages.filter(conversation=conversation)
            .select_related("generation")
            .only("role", "content", *COLUMNS, "generation__text")
            .order_by("position")
        )
        _derive(conversation.system_prompt, dialogue)
        messages.bulk_update(dialogue, COLUMNS, batch_size=BATCH_SIZE)


def _derive(system_prompt: str, dialogue: list[Any]) -> None:
    latest = digest(compared(system_prompt))
    for row in dialogue:
        row.content_folded, row.content_digest = folded(row.content), answer_digest(row.content)
        if row.role == "user":
            row.history_digest = latest = digest(f"{latest}\n{compared(row.content)}")
        elif answer := answer_digest(row.generation.text if row.generation else row.content):
            latest = digest(f"{latest}\0{answer}")


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_normalized_digests"),
        ("inference", "0008_folded_texts"),
    ]

    operations = [
        migrations.AddField(
            model_name="conversation",
            name="title_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="title"),
        ),
        migrations.AddField(
            model_name="message",
            name="content_digest",
            field=inference.models.derived.DigestField(
                blank=True, default="", editable=False, max_length=64, source="content"
            ),
        ),
        migrations.AddField(
            model_name="message",
            name="content_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="content"),
        ),
        migrations.RunPython(derive, migrations.RunPython.noop),
    ]
