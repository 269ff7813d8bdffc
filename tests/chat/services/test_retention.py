"""Deletion of conversations for their age."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from chat.access import api_keys
from chat.access.api_keys import issue_key, revoke_key
from chat.access.callers import Caller
from chat.models import ApiKey, Conversation
from chat.services import conversations
from chat.services.accounts import retention
from chat.services.conversations import create_conversation, update_conversation
from inference.models import Generation, PurgeRequest, Status
from tests.api.people import make_user

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


@pytest.mark.parametrize(("retention_days", "n_left"), [(0, 4), (400, 4), (30, 3)])
def test_keys_that_ended_long_ago(retention_days: int, n_left: int, settings: Settings) -> None:
    settings.RETENTION_DAYS = retention_days
    user = make_user("ann")
    keys = [issue_key(user, name=str(number)).row for number in range(6)]
    long_ago, lately = timezone.now() - timedelta(days=91), timezone.now() - timedelta(days=31)
    ApiKey.objects.filter(pk=keys[0].pk).update(revoked_at=long_ago)
    ApiKey.objects.filter(pk=keys[1].pk).update(expires_at=long_ago)
    ApiKey.objects.filter(pk=keys[2].pk).update(revoked_at=lately)
    ApiKey.objects.filter(pk=keys[3].pk).update(created_at=long_ago, last_used_at=long_ago)
    retention.delete_all_outdated()
    left = set(ApiKey.objects.values_list("pk", flat=True))
    assert len(left) == n_left
    assert left >= {keys[3].pk, keys[4].pk, keys[5].pk}, "an active key is never deleted"


def test_keys_that_are_made_and_revoked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_ENDED_KEYS", 3)
    ann, bob = make_user("ann"), make_user("bob")
    revoke_key(issue_key(bob, name="bob's").row)
    for number in range(8):
        revoke_key(issue_key(ann, name=str(number)).row)
    issue_key(ann, name="active")
    names = set(ApiKey.objects.values_list("name", flat=True))
    assert names == {"bob's", "5", "6", "7", "active"}
