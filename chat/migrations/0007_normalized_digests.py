import hashlib
from collections.abc import Sequence

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from inference.text_forms import compared

BATCH_SIZE = 500


def renew_digests(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Compute ``history_digest`` over normalized texts, as history matching does since this migration."""
    conversations = apps.get_model("chat", "Conversation").objects.order_by("pk")
    messages = apps.get_model("chat", "Message").objects
    for conversation in conversations.only("system_prompt").iterator(chunk_size=BATCH_SIZE):
        rows = list(
            messages.filter(conversation=conversation, role="user")
            .only("content", "history_digest")
            .order_by("position")
        )
        for row, digest in zip(rows, _digests(conversation.system_prompt, [row.content for row in rows]), strict=True):
            row.history_digest = digest
        messages.bulk_update(rows, ["history_digest"], batch_size=BATCH_SIZE)


def _digests(system: str, user_texts: Sequence[str]) -> list[str]:
    digest = _digest(compared(system))
    cumulative: list[str] = []
    for text in user_texts:
        digest = _digest(f"{digest}\n{compared(text)}")
        cumulative.append(digest)
    return cumulative


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0006_conversation_cache_epoch"),
    ]

    operations = [
        migrations.RunPython(renew_digests, migrations.RunPython.noop),
    ]
