"""Deletion of many conversations in the background, and of a user with or without what belongs to him."""

import json
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client

from chat.errors import Unavailable
from chat.models import BulkDeletion, Conversation, Message
from chat.rag.models import Note
from chat.services.accounts import bulk_deletion
from chat.services.conversations import delete_conversation
from inference.models import Generation
from tests.admin.builders import add_answer, add_question, conversation, operator
from tests.admin.test_actions import act

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

CONVERSATIONS = "/admin/chat/conversation/"
USERS = "/admin/auth/user/"
N_MANY = bulk_deletion.MOST_AT_ONCE + 3


def many(owner: str = "local", n: int = N_MANY) -> list[Conversation]:
    rows = [conversation(owner, title=f"number {number}") for number in range(n)]
    add_question(rows[0])
    add_answer(rows[0])
    return rows


def ask(client: Client, rows: list[Conversation], **more: str) -> Any:  # noqa: ANN401  the test client's response
    data = {"action": "delete_selected", "_selected_action": [row.pk for row in rows], **more}
    return client.post(CONVERSATIONS, data)


class TestConfirmation:
    def test_it_names_a_few_and_counts_all(self) -> None:
        response = ask(operator(), many())
        page = response.content.decode()
        assert f"Delete {N_MANY} conversations with 2 messages" in page
        assert page.count("<li>number") == bulk_deletion.MOST_AT_ONCE
        assert "and 3 more" in page

    def test_a_selection_of_everything_names_no_ids(self) -> None:
        rows = many()
        page = ask(operator(), rows[:1], select_across="1").content.decode()
        assert f"Delete {N_MANY} conversations" in page
        assert page.count('name="_selected_action"') == 1
        assert 'name="select_across" value="1"' in page

    def test_what_came_after_the_question_stays(self) -> None:
        rows, client = many(n=2), operator()
        until = ask(client, rows[:1], select_across="1").context["until"]
        later = conversation(title="came later")
        ask(client, rows[:1], select_across="1", post="yes", until=until)
        assert list(Conversation.objects.all()) == [later]


class TestInTheBackground:
    def test_many_with_all_that_belongs_to_them(self) -> None:
        rows, spared = many(), conversation(title="spared")
        client = operator()
        response = ask(client, rows, post="yes")
        row = BulkDeletion.objects.get()
        assert response.headers["Location"] == f"/admin/chat/bulkdeletion/{row.pk}/change/"
        assert Conversation.objects.count() == N_MANY + 1
        assert f"0 of {N_MANY}" in client.get(response.headers["Location"]).content.decode()
        assert bulk_deletion.delete_next()
        row.refresh_from_db()
        assert (row.n_done, row.ended_at) == (bulk_deletion.MOST_AT_ONCE, None)
        bulk_deletion.delete_all_requested()
        row.refresh_from_db()
        assert (row.n_done, row.requested_by, row.conversation_ids) == (N_MANY, "operator", [])
        assert list(Conversation.objects.all()) == [spared]
        assert not Message.objects.exists()
        assert not Generation.objects.exists()
        page = client.get(response.headers["Location"]).content.decode()
        assert f"{N_MANY} of {N_MANY}" in page
        assert "data-live-secs" not in page

    def test_one_that_its_owner_deleted_meanwhile(self) -> None:
        rows = many()
        bulk_deletion.request_deletion(conversation_ids=[*[row.pk for row in rows], uuid4()], requested_by="op")
        rows[3].delete()
        bulk_deletion.delete_all_requested()
        assert not Conversation.objects.exists()
        assert BulkDeletion.objects.get().n_done == N_MANY + 1

    def test_it_continues_where_a_failure_left_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = many()
        bulk_deletion.request_deletion(conversation_ids=[row.pk for row in rows], requested_by="op")
        delete, calls = delete_conversation, []

        def fail_once(**arguments: Any) -> None:  # noqa: ANN401  those of the service
            calls.append(arguments)
            if len(calls) == 5:
                raise Unavailable("the database does not answer")
            delete(**arguments)

        monkeypatch.setattr(bulk_deletion, "delete_conversation", fail_once)
        bulk_deletion.delete_all_requested()
        row = BulkDeletion.objects.get()
        assert (row.n_done, Conversation.objects.count()) == (4, N_MANY - 4)
        bulk_deletion.delete_all_requested()
        assert not Conversation.objects.exists()
        assert not bulk_deletion.delete_next()

    def test_only_who_may_delete(self) -> None:
        rows = many()
        ask(operator("view_conversation", "change_conversation"), rows, post="yes")
        assert not BulkDeletion.objects.exists()
        assert Conversation.objects.count() == N_MANY


def delete_user(client: Client, user: User, *, belongings: str, selected: bool) -> None:
    if selected:
        act(client, USERS, "delete_selected", user.pk, post="yes", belongings=belongings)
    else:
        client.post(f"{USERS}{user.pk}/delete/", {"post": "yes", "belongings": belongings})


class TestUsers:
    @pytest.fixture
    def ann(self) -> User:
        user = User.objects.create_user("ann")
        Note.objects.create(owner=f"user:{user.pk}", title="note", body="private")
        return user

    def test_the_page_says_what_there_is_and_asks(self, ann: User) -> None:
        many(f"user:{ann.pk}", n=3)
        page = operator().get(f"{USERS}{ann.pk}/delete/").content.decode()
        assert "ann has 3 conversations, 0 transcripts and 1 note" in page
        assert page.count('name="belongings"') == 2

    @pytest.mark.parametrize("selected", [False, True])
    def test_all_of_it_is_deleted(self, ann: User, selected: bool) -> None:
        many(f"user:{ann.pk}", n=3)
        client = operator()
        delete_user(client, ann, belongings="delete", selected=selected)
        assert not User.objects.filter(pk=ann.pk).exists()
        assert not Conversation.objects.exists()
        assert not Note.objects.exists()

    @pytest.mark.parametrize("selected", [False, True])
    def test_all_of_it_stays(self, ann: User, selected: bool) -> None:
        many(f"user:{ann.pk}", n=3)
        client = operator()
        delete_user(client, ann, belongings="keep", selected=selected)
        assert not User.objects.filter(pk=ann.pk).exists()
        assert Conversation.objects.count() == 3
        assert Note.objects.count() == 1
        assert f"deleted user {ann.pk}" in client.get(CONVERSATIONS).content.decode()

    def test_much_of_it_goes_in_the_background_and_the_user_last(self, ann: User) -> None:
        many(f"user:{ann.pk}")
        client = operator()
        client.post(f"{USERS}{ann.pk}/delete/", {"post": "yes", "belongings": "delete"})
        ann.refresh_from_db()
        assert not ann.is_active
        bulk_deletion.delete_next()
        assert User.objects.filter(pk=ann.pk).exists()
        bulk_deletion.delete_all_requested()
        assert not User.objects.filter(pk=ann.pk).exists()
        assert not Conversation.objects.exists()
        assert not Note.objects.exists()


def test_selected_ones_are_exported_as_lines() -> None:
    rows = many(n=3)
    spared = conversation(title="spared")
    response = operator().post(CONVERSATIONS, {"action": "export_lines", "_selected_action": [row.pk for row in rows]})
    assert response.headers["Content-Disposition"] == 'attachment; filename="conversations.jsonl"'
    with pytest.warns(Warning, match="asynchronous iterators"):  # the test client is no server of ASGI
        lines = [json.loads(line) for line in b"".join(response).splitlines()]
    assert {line["id"] for line in lines} == {str(row.pk) for row in rows}
    assert sum(len(line["messages"]) for line in lines) == 2
    assert str(spared.pk) not in str(lines)
