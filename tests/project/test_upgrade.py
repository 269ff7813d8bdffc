"""An upgrade from the last released version, with rows in every state: nothing is lost, and all of it still works."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.live_stack import PROJECT
from tests.private_environment import clean_environment

# The last migrations of version 0.2.0.
RELEASED = [
    ("chat", "0006_conversation_cache_epoch"),
    ("inference", "0006_purge_request"),
    ("memory", "0003_passages_without_vector"),
]
SCRIPT = """
import json, sys
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

released = [tuple(node) for node in json.loads(sys.argv[1])]
executor = MigrationExecutor(connection)
others = [node for node in executor.loader.graph.leaf_nodes() if node[0] not in {app for app, _ in released}]
executor.migrate([*others, *released])
old = MigrationExecutor(connection).loader.project_state([*others, *released]).apps

from inference.enums import Status
user = old.get_model("auth", "User").objects.create(username="ann", password="!", is_active=True)
owner, now = f"user:{user.pk}", timezone.now()
Generation, Message = old.get_model("inference", "Generation"), old.get_model("chat", "Message")
for number, status in enumerate(Status):
    conversation = old.get_model("chat", "Conversation").objects.create(owner=owner, title=f"Crème {status}")
    generation = Generation.objects.create(owner=owner, status=status, text=f"Réponse {status}", params={})
    Message.objects.create(conversation=conversation, position=0, role="user", content=f"Frage {status}")
    Message.objects.create(conversation=conversation, position=1, role="assistant", generation=generation)
    old.get_model("chat", "Retrieval").objects.create(
        message=Message.objects.get(generation=generation), query="Où?", sources=[{"label": "1", "text": "x"}]
    )
for number, state in enumerate(("made", "failed", "making"), start=1):
    old.get_model("chat", "Summary").objects.create(
        conversation=conversation, version=number, state=state, covers_until=0, text=f"summary {state}"
    )
memory = lambda name: old.get_model("memory", name).objects
transcript = memory("Transcript").create(owner=owner, job_id="j", title="Weekly")
segment = memory("Segment").create(transcript=transcript, position=0, text="Der Hafen öffnet", said_at=now)
note = memory("Note").create(owner=owner, title="milk", body="Hafermilch kaufen")
of_segment = {"segment": segment, "transcript": transcript, "kind": "transcript_segment"}
memory("Passage").create(owner=owner, text=segment.text, said_at=now, **of_segment)
memory("Passage").create(owner=owner, text=note.body, said_at=now, note=note, kind="memory")
old.get_model("inference", "PurgeRequest").objects.create(reason="conversation")

call_command("migrate", verbosity=0)

from chat.access.callers import Caller
from chat.models import Conversation
from chat.rag.query import RetrievalQuery, SourceFilters
from chat.rag.search import hybrid
from chat.services.conversations import conversations_of, export_conversation
from inference.models import PurgeRequest
from django.contrib.auth import get_user_model
caller = Caller.of_user(get_user_model().objects.get())
call_command("check", fail_level="WARNING")
query = RetrievalQuery(text="Hafen öffnet", top_k=5, filters=SourceFilters(), owner=caller.key, now=timezone.now())
print(json.dumps({
    "exports": [export_conversation(caller=caller, conversation_id=row.pk) for row in conversations_of(caller)],
    "by_title": conversations_of(caller).search("CRÈME").count(),
    "by_answer": conversations_of(caller).search("RÉPONSE failed").count(),
    "kept": Conversation.objects.filter(keep=True).count(),
    "hits": [hit.text for hit in hybrid.search(query).sources],
    "purges": PurgeRequest.objects.count(),
    "pending": MigrationExecutor(connection).migration_plan(executor.loader.graph.leaf_nodes()) != [],
}))
"""


def test_every_row_comes_along(tmp_path: Path) -> None:
    environment = {**clean_environment(), "DJANGO_SETTINGS_MODULE": "gemma_project.settings", "GEMMA_BACKEND": "fake"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(RELEASED)],
        # The first search of a process loads the encoder.
        env={**environment, "GEMMA_DATA_DIR": str(tmp_path), "RAG_TIMEOUT_SECS": "60"},
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    states = {"preparing", "queued", "running", "complete", "interrupted", "failed"}
    exports = {export["title"].split()[-1]: export for export in result["exports"]}
    assert set(exports) == states
    for state, export in exports.items():
        question, answer = export["messages"]
        assert (question["content"], answer["content"]) == (f"Frage {state}", f"Réponse {state}")
        assert (answer["status"], answer["sources"][0]["label"]) == (state, "1")
    summaries = [export["summaries"] for export in exports.values() if export["summaries"]]
    assert [sorted(summary["text"] for summary in rows) for rows in summaries] == [
        ["summary failed", "summary made", "summary making"]
    ]
    assert (result["by_title"], result["by_answer"]) == (len(states), 1)
    assert "Der Hafen öffnet" in " ".join(result["hits"])
    assert (result["kept"], result["purges"], result["pending"]) == (0, 1, False)
