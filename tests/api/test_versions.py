"""Versions of a conversation: what branches off is found with its origin, also after a deletion."""

from typing import Any

import pytest

from chat.access.callers import Caller
from chat.models import Conversation, Message, Retrieval, Role
from chat.services.conversations import delete_conversation
from tests.api.calling import Api
from tests.api.test_conversation_routes import URL

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


def fork(source: Conversation, at: int) -> Conversation:
    """Store what a turn that replaces a question stores."""
    family = source.family or source.pk
    Conversation.objects.filter(pk=source.pk).update(family=family)
    source.refresh_from_db()
    return Conversation.objects.create(
        owner=source.owner, title=source.title, family=family, forked_from=source, forked_at=at
    )


def versions(conversation: Conversation) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = Api().get(f"{URL}{conversation.pk}/versions/").body["results"]
    return results


def branches(conversation: Conversation) -> list[tuple[str | None, int | None]]:
    return [(one["forked_from"], one["forked_at"]) for one in versions(conversation)]


def listed(query: str) -> set[str]:
    return {one["id"] for one in Api().get(URL + query).body["results"]}


@pytest.fixture
def root() -> Conversation:
    return Conversation.objects.create(owner="local", title="root")


def delete(conversation: Conversation) -> None:
    delete_conversation(caller=Caller.local(), conversation_id=conversation.pk)


def test_a_conversation_alone(root: Conversation) -> None:
    assert [one["id"] for one in versions(root)] == [str(root.pk)]
    assert Api().get(f"{URL}{root.pk}/").body["family"] is None


def test_forks_of_forks_are_one_family(root: Conversation) -> None:
    first = fork(root, 2)
    second = fork(first, 4)
    assert branches(second) == [(None, None), (str(root.pk), 2), (str(first.pk), 4)]
    assert versions(root) == versions(second)


def test_the_list_shows_the_last_continued_of_a_family(root: Conversation) -> None:
    other = Conversation.objects.create(owner="local", title="other")
    first, second = fork(root, 0), fork(root, 2)
    assert listed("?versions=latest") == {str(second.pk), str(other.pk)}
    assert len(listed("")) == len(listed("?versions=all")) == 4
    first.save()
    assert listed("?versions=latest") == {str(first.pk), str(other.pk)}
    assert Api().get(URL + "?versions=newest").outcome == (400, "invalid_request")


def test_another_owners_fork_hides_nothing(root: Conversation) -> None:
    """Also if a family id were the same by mistake."""
    mine = fork(root, 2)
    Conversation.objects.create(owner="user:9", family=mine.family)
    assert len(versions(mine)) == 2
    assert Api().get(URL + "?versions=latest").body["count"] == 1


def test_a_deleted_origin_leaves_its_forks_related(root: Conversation) -> None:
    first, second, third = fork(root, 2), fork(root, 6), fork(root, 4)
    delete(root)
    assert branches(first) == [(None, None), (str(first.pk), 2), (str(first.pk), 2)]
    delete(first)
    assert branches(second) == [(None, None), (str(second.pk), 2)]
    delete(second)
    assert branches(third) == [(None, None)]


def test_a_deleted_branch_hands_its_forks_to_its_origin(root: Conversation) -> None:
    middle = fork(root, 4)
    early, late = fork(middle, 2), fork(middle, 6)
    delete(middle)
    assert branches(late) == [(None, None), (str(root.pk), 2), (str(root.pk), 4)]
    assert early.pk != late.pk


def test_a_copied_answer_shows_its_sources(root: Conversation) -> None:
    """The copies in a fork have no generation, and are read like the originals."""
    question = Message.objects.create(conversation=root, position=0, role=Role.USER, content="When? [1]")
    answer = Message.objects.create(conversation=root, position=1, role=Role.ASSISTANT, content="On Friday [1].")
    sources = [{"label": label, "kind": "memory", "text": f"text {label}"} for label in ("1", "2")]
    Retrieval.objects.create(message=answer, sources=sources, error="slow")
    shown = Api().get(f"{URL}{root.pk}/messages/").body["results"]
    assert [(one["label"], one["cited"]) for one in shown[1]["sources"]] == [("1", True), ("2", False)]
    assert shown[1]["rag_error"] == "slow"
    assert (shown[0]["id"], shown[0]["sources"]) == (str(question.pk), [])
