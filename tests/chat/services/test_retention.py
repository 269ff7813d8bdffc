"""Deletion of conversations for their age."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from chat.access.callers import Caller
from chat.models import Conversation
from chat.services import conversations
from chat.services.accounts import retention
from chat.services.conversations import create_conversation, update_conversation
from inference.models import Generation, PurgeRequest, Status

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


def aged(title: str, days: float, *, keep: bool = False) -> Conversation:
    conversation = create_conversation(caller=Caller.local(), title=title, keep=keep)
    Conversation.objects.filter(pk=conversation.pk).update(updated_at=timezone.now() - timedelta(days=days))
    return conversation


def titles() -> set[str]:
    return set(Conversation.objects.values_list("title", flat=True))


def test_what_is_old_goes_and_what_is_kept_remains(settings: Settings) -> None:
    settings.RETENTION_DAYS = 30
    old = aged("old", 30.1)
    answer = Generation.objects.create(owner="local", params={}, status=Status.COMPLETE, text="secret")
    old.messages.create(position=0, role="assistant", generation=answer)
    aged("kept", 400, keep=True)
    aged("young", 29.9)
    assert retention.delete_outdated() == 1
    assert titles() == {"kept", "young"}
    assert not Generation.objects.exists()
    assert PurgeRequest.objects.count() == 1, "its KV states and logs go, too"
    assert retention.delete_outdated() == 0


def test_by_default_nothing_goes() -> None:
    aged("old", 40_000)
    retention.delete_all_outdated()
    assert titles() == {"old"}


def test_more_than_a_batch(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RETENTION_DAYS = 1
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for number in range(5):
        aged(str(number), 2)
    retention.delete_all_outdated()
    assert titles() == set()


def test_a_conversation_that_was_continued_after_the_query(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RETENTION_DAYS = 1
    first, second = aged("first", 3), aged("second", 2)
    delete = conversations.delete_conversation

    def delete_and_continue(**owned: object) -> None:
        delete(**owned)  # type: ignore[arg-type]
        update_conversation(caller=Caller.local(), conversation_id=second.pk, title="continued")

    monkeypatch.setattr(retention, "delete_conversation", delete_and_continue)
    assert retention.delete_outdated() == 1
    assert titles() == {"continued"}
    assert not Conversation.objects.filter(pk=first.pk).exists()
