"""Export and deletion of all that belongs to a user: by API, command and admin; nothing of others, nothing left."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from chat.access import tokens
from chat.access.api_keys import issue_key
from chat.models import Conversation, Message
from chat.rag.indexing import indexer
from chat.rag.records import SegmentIn, TranscriptIn
from inference.models import DailyUsage, Generation, Status
from inference.queue.usage import record_day
from tests.admin.builders import operator
from tests.api.calling import Api
from tests.api.people import PASSWORD, access_token, bearer, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.databases]
ACCOUNT, EXPORT = "/api/account/", "/api/account/export/"


@pytest.fixture(autouse=True)
def _no_counters(redis_client: "redis.Redis[str]") -> None:
    """Earlier failures must not count."""


def furnished(name: str) -> User:
    """A user with something of every kind."""
    user = make_user(name)
    owner = f"user:{user.pk}"
    conversation = Conversation.objects.create(owner=owner, title=f"{name}'s chat")
    generation = Generation.objects.create(owner=owner, params={}, status=Status.COMPLETE, text=f"answer to {name}")
    Message.objects.create(conversation=conversation, position=0, role="user", content=f"secret of {name}")
    Message.objects.create(conversation=conversation, position=1, role="assistant", generation=generation)
    indexer.add_note(owner=owner, title=f"{name}'s note", body="milk", metadata={"x": 1})
    segment = SegmentIn(text=f"said {name}", speaker="Sarah", start_secs=0.0)
    indexer.index_transcript(owner=owner, transcript=TranscriptIn(job_id=f"{name}-1", title="t", segments=(segment,)))
    issue_key(user, name=f"{name}'s key")
    record_day(owner=owner, n_prompt_tokens=3, n_completion_tokens=2)
    tokens.begin_family(user)
    return user


@pytest.fixture
def ann() -> User:
    return furnished("ann")


@pytest.fixture
def bob() -> User:
    return furnished("bob")


def assert_anns(document: dict[str, Any]) -> None:
    assert document["user"]["username"] == "ann"
    (conversation,) = document["conversations"]
    assert [message["content"] for message in conversation["messages"]] == ["secret of ann", "answer to ann"]
    assert [note["title"] for note in document["notes"]] == ["ann's note"]
    assert [row["segments"][0]["text"] for row in document["transcripts"]] == ["said ann"]
    assert [key["name"] for key in document["api_keys"]] == ["ann's key"]
    assert document["usage"][0]["n_completion_tokens"] == 2
    text = json.dumps(document)
    assert "bob" not in text
    assert "pbkdf2" not in text
    assert "md5$" not in text


class TestExport:
    def test_by_api(self, ann: User, bob: User) -> None:
        answer = Api().get(EXPORT, bearer(access_token(ann)))
        assert "attachment" in answer.headers["Content-Disposition"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert_anns(answer.body)

    def test_by_command(self, ann: User, bob: User, tmp_path: Path) -> None:
        path = tmp_path / "ann.json"
        call_command("user_data", "export", "ann", str(path), stdout=StringIO())
        assert path.stat().st_mode & 0o777 == 0o600
        assert_anns(json.loads(path.read_text()))
        shown = StringIO()
        call_command("user_data", "export", "ann", "-", stdout=shown)
        assert json.loads(shown.getvalue()) == json.loads(path.read_text())
        for wrong in (["nobody", "-"], ["ann", str(tmp_path)]):
            with pytest.raises(CommandError):
                call_command("user_data", "export", *wrong, stdout=StringIO())

    def test_in_the_admin(self, ann: User, bob: User) -> None:
        client = operator()
        response = client.post("/admin/auth/user/", {"action": "export_data", "_selected_action": [str(ann.pk)]})
        assert_anns(json.loads(response.content))
        both = {"action": "export_data", "_selected_action": [str(ann.pk), str(bob.pk)]}
        assert client.post("/admin/auth/user/", both).status_code == 302

    def test_a_user_with_nothing(self) -> None:
        answer = Api().get(EXPORT, bearer(access_token(make_user("new"))))
        assert [answer.body[name] for name in ("conversations", "notes", "transcripts", "api_keys", "usage")] == [
            []
        ] * 5

    def test_no_one_without_an_account(self) -> None:
        assert Api().get(EXPORT).outcome == (403, "user_required")


def rows_of(user_pk: int) -> dict[str, int]:
    """The rows that name a user, directly or as owner."""
    counts = {}
    for app in ("chat", "memory", "inference"):
        for model in apps.get_app_config(app).get_models():
            if any(field.name == "owner" for field in model._meta.get_fields()):
                counts[model._meta.label] = model._default_manager.filter(owner=f"user:{user_pk}").count()
    counts["tokens"] = OutstandingToken.objects.filter(user_id=user_pk).count()
    return counts


class TestDeletion:
    def test_by_api_with_the_password(self, ann: User, bob: User, no_broker: None) -> None:
        pk, before = ann.pk, rows_of(bob.pk)
        headers = bearer(access_token(ann))
        for body in ({}, {"password": ""}, {"password": 7}):
            assert Api().call("DELETE", ACCOUNT, body, headers=headers).status == 400
        wrong = Api().call("DELETE", ACCOUNT, {"password": "wrong"}, headers=headers)
        assert wrong.outcome == (403, "wrong_credentials")
        assert User.objects.filter(pk=pk).exists()
        n_tokens = OutstandingToken.objects.count()
        assert Api().call("DELETE", ACCOUNT, {"password": PASSWORD}, headers=headers).status == 204
        assert set(rows_of(pk).values()) == {0}
        assert OutstandingToken.objects.count() == n_tokens - 1, "a token without its user would remain"
        assert not User.objects.filter(pk=pk).exists()
        assert Api().get(ACCOUNT.replace("account", "usage"), headers).status == 401
        assert rows_of(bob.pk) == before

    def test_guessing_the_password_is_limited(self, ann: User) -> None:
        headers = bearer(access_token(ann))
        statuses = [Api().call("DELETE", ACCOUNT, {"password": "x"}, headers=headers).status for _ in range(12)]
        assert statuses == [403] * 10 + [429] * 2

    def test_by_command(self, ann: User, bob: User, no_broker: None) -> None:
        pk = ann.pk
        with pytest.raises(CommandError, match="1 conversations, 1 transcripts, 1 notes; add --yes"):
            call_command("user_data", "delete", "ann")
        call_command("user_data", "delete", "ann", "--yes", stdout=StringIO())
        assert set(rows_of(pk).values()) == {0}
        assert DailyUsage.objects.count() == 1
