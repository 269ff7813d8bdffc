from typing import Any

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

import inference.models.derived
from inference.text_forms import answer_digest, compared, digest, folded

BATCH_SIZE = 500
GENERATED = ["dialogue_digest", "dialogue_continued"]


def derive(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Renew the cumulative digests, which cover the owner and stand at answers, too, since this migration."""
    messages = apps.get_model("chat", "Message").objects
    generations = apps.get_model("inference", "Generation").objects
    conversations = apps.get_model("chat", "Conversation").objects.order_by("pk").only("owner", "system_prompt")
    columns = ("role", "content", "history_digest", "generation__text", *(f"generation__{name}" for name in GENERATED))
    for conversation in conversations.iterator(chunk_size=BATCH_SIZE):
        rows = messages.filter(conversation=conversation).select_related("generation").only(*columns)
        dialogue = list(rows.order_by("position"))
        _derive(conversation, dialogue)
        messages.bulk_update(dialogue, ["history_digest"], batch_size=BATCH_SIZE)
        answers = [row.generation for row in dialogue if row.generation]
        generations.bulk_update(answers, GENERATED, batch_size=BATCH_SIZE)


def _derive(conversation: Any, dialogue: list[Any]) -> None:  # noqa: ANN401  a historical model
    latest = digest(f"{conversation.owner}\n{compared(conversation.system_prompt)}")
    last_question = ""
    for row in dialogue:
        text = row.generation.text if row.generation else row.content
        if row.role == "user":
            row.history_digest = latest = last_question = digest(f"{latest}\n{compared(text)}")
            continue
        if row.generation:
            row.generation.dialogue_digest = last_question
            row.generation.dialogue_continued = row is not dialogue[-1]
        answer = answer_digest(text)
        latest = digest(f"{latest}\0{answer}") if answer else latest
        row.history_digest = latest if answer and not row.generation else ""


def derive_queries(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    retrievals = apps.get_model("chat", "Retrieval").objects
    for retrieval in retrievals.exclude(query="").order_by("pk").only("query").iterator(chunk_size=BATCH_SIZE):
        retrievals.filter(pk=retrieval.pk).update(query_folded=folded(retrieval.query))


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0009_thoughts"),
        ("inference", "0010_dialogue_digests"),
    ]

    operations = [
        migrations.AddField(
            model_name="retrieval",
            name="query_folded",
            field=inference.models.derived.FoldedField(blank=True, default="", editable=False, source="query"),
        ),
        migrations.AlterField(
            model_name="message",
            name="history_digest",
            field=models.CharField(blank=True, default="", max_length=64),
        ),
        migrations.AddIndex(
            model_name="message",
            index=models.Index(fields=["history_digest", "-created_at"], name="message_history"),
        ),
        migrations.RunPython(derive, migrations.RunPython.noop),
        migrations.RunPython(derive_queries, migrations.RunPython.noop),
    ]
