"""Actions of operators, through the services, and their permissions."""

import json
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from chat.errors import Unavailable
from chat.models import Conversation, Message, Retrieval
from chat.services import conversations, turns
from inference.models import Generation, Status
from tests.admin.builders import (
    SOURCE,
    add_answer,
    add_question,
    add_sources,
    conversation,
    operator,
    page_of,
    unfinished,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

CONVERSATIONS = "/admin/chat/conversation/"
MESSAGES = "/admin/chat/message/"
VIEW_ALL = ("view_conversation", "view_message", "view_retrieval")


@pytest.fixture
def chat() -> Conversation:
    chat = conversation("service:gateway")
    add_question(chat)
    add_sources(add_answer(chat), SOURCE)
    return chat


def act(client: Client, address: str, action: str, *selected: object, **more: str) -> list[str]:
    """Use an action of a list; return the page's messages."""
    data = {"action": action, "_selected_action": [str(pk) for pk in selected], **more}
    response = client.post(address, data, follow=True)
    assert response.status_code == 200
    return messages_of(response.context)


def messages_of(context: object) -> list[str]:
    return [str(message) for message in context["messages"]]  # type: ignore[index]


def status_of(message: Message) -> tuple[str, str]:
    generation = Generation.objects.get(message=message)
    return generation.status, generation.finish_reason


class TestStopping:
    @pytest.mark.parametrize("status", ["preparing", "queued"])
    def test_a_waiting_row_ends_at_once(self, chat: Conversation, status: str) -> None:
        waiting = unfinished(chat, status)
        assert act(operator(), CONVERSATIONS, "cancel_answers", chat.pk) == ["1 answer cancelled."]
        assert status_of(waiting) == (Status.INTERRUPTED, "cancelled")

    def test_what_runs_is_told(self, chat: Conversation) -> None:
        running = unfinished(chat, "running")
        act(operator(), CONVERSATIONS, "cancel_answers", chat.pk)
        assert running.generation is not None
        running.generation.refresh_from_db()
        assert running.generation.cancel_requested

    def test_only_in_the_selected_conversations(self, chat: Conversation) -> None:
        unfinished(chat)
        spared = unfinished(conversation())
        act(operator(), CONVERSATIONS, "cancel_answers", chat.pk)
        assert status_of(spared) == (Status.QUEUED, "")

    def test_several_in_several_conversations(self, chat: Conversation) -> None:
        other = conversation()
        stopped = [unfinished(chat), unfinished(other), unfinished(other)]
        assert act(operator(), CONVERSATIONS, "cancel_answers", chat.pk, other.pk) == ["3 answers cancelled."]
        assert {status_of(message)[0] for message in stopped} == {Status.INTERRUPTED}

    def test_nothing_under_way_is_said(self, chat: Conversation) -> None:
        assert act(operator(), CONVERSATIONS, "cancel_answers", chat.pk) == ["There was no unfinished answer."]

    def test_single_answers(self, chat: Conversation) -> None:
        stopped, spared = unfinished(chat), unfinished(conversation())
        assert act(operator(), MESSAGES, "cancel_answers", stopped.pk) == ["1 answer cancelled."]
        assert status_of(stopped)[0] == Status.INTERRUPTED
        assert status_of(spared)[0] == Status.QUEUED

    def test_on_the_page_of_the_conversation(self, chat: Conversation) -> None:
        client = operator()
        waiting = unfinished(chat)
        assert "Stop the unfinished answer" in client.get(page_of(chat)).content.decode()
        response = client.post(f"{CONVERSATIONS}{chat.pk}/cancel/", follow=True)
        assert messages_of(response.context) == ["1 answer cancelled."]
        assert "Stop the unfinished answer" not in response.content.decode()
        assert status_of(waiting)[0] == Status.INTERRUPTED
        assert LogEntry.objects.get().change_message == "Cancelled 1 answer."

    def test_an_answer_that_ended_meanwhile_is_no_error(
        self, chat: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting = unfinished(chat)
        cancel = turns.cancel

        def too_late(**arguments: object) -> object:
            Generation.objects.filter(message=waiting).update(status=Status.COMPLETE)
            return cancel(**arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(turns, "cancel", too_late)
        assert act(operator(), CONVERSATIONS, "cancel_answers", chat.pk) == ["There was no unfinished answer."]

    def test_a_store_that_is_away_is_said(self, chat: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(**arguments: object) -> None:
            raise Unavailable("Redis does not answer")

        unfinished(chat)
        monkeypatch.setattr(turns, "cancel", refuse)
        assert act(operator(), CONVERSATIONS, "cancel_answers", chat.pk) == ["Not done: Redis does not answer"]


class TestDeleting:
    def test_one_with_all_that_belongs_to_it(self, chat: Conversation) -> None:
        client = operator()
        unfinished(chat)
        question = client.get(f"{CONVERSATIONS}{chat.pk}/delete/").content.decode()
        assert "The deadline (3 messages)" in question
        assert client.post(f"{CONVERSATIONS}{chat.pk}/delete/", {"post": "yes"}).status_code == 302
        for model in (Conversation, Message, Retrieval, Generation):
            assert not model.objects.exists()

    def test_many(self, chat: Conversation) -> None:
        spared = conversation(title="spared")
        more = conversation()
        act(operator(), CONVERSATIONS, "delete_selected", chat.pk, more.pk, post="yes")
        assert list(Conversation.objects.values_list("title", flat=True)) == [spared.title]

    def test_through_the_service_in_the_owners_name(self, chat: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        monkeypatch.setattr(conversations, "delete_conversation", lambda **arguments: calls.append(arguments))
        operator().post(f"{CONVERSATIONS}{chat.pk}/delete/", {"post": "yes"})
        assert [(call["caller"].key, call["conversation_id"]) for call in calls] == [("service:gateway", chat.pk)]

    @pytest.mark.parametrize("many", [False, True])
    def test_a_refusal_is_said_and_nothing_is_gone(
        self, chat: Conversation, monkeypatch: pytest.MonkeyPatch, many: bool
    ) -> None:
        def refuse(**arguments: object) -> None:
            raise Unavailable("the database does not answer")

        monkeypatch.setattr(conversations, "delete_conversation", refuse)
        client = operator()
        if many:
            messages = act(client, CONVERSATIONS, "delete_selected", chat.pk, post="yes")
        else:
            response = client.post(f"{CONVERSATIONS}{chat.pk}/delete/", {"post": "yes"}, follow=True)
            messages = messages_of(response.context)
        assert messages == ["Not done: the database does not answer"]
        assert Conversation.objects.filter(pk=chat.pk).exists()


class TestTitles:
    def test_a_title_may_be_changed(self, chat: Conversation) -> None:
        assert operator().post(page_of(chat), {"title": "Better"}).status_code == 302
        chat.refresh_from_db()
        assert chat.title == "Better"

    def test_nothing_else_may(self, chat: Conversation) -> None:
        operator().post(page_of(chat), {"title": "x", "owner": "local", "system_prompt": "Obey.", "summary": "s"})
        chat.refresh_from_db()
        assert (chat.owner, chat.system_prompt, chat.summary) == ("service:gateway", "", "")


class TestExports:
    def test_json_is_a_file_with_everything(self, chat: Conversation) -> None:
        response = operator().get(f"{CONVERSATIONS}{chat.pk}/export.json")
        assert response["Content-Disposition"] == f'attachment; filename="conversation-{chat.pk}.json"'
        body = json.loads(response.content)
        assert [message["content"] for message in body["messages"]] == ["When is the deadline?", "On the 14th [1]."]

    def test_markdown_is_a_file(self, chat: Conversation) -> None:
        response = operator().get(f"{CONVERSATIONS}{chat.pk}/export.md")
        assert response["Content-Type"].startswith("text/markdown")
        assert response["X-Content-Type-Options"] == "nosniff"
        assert "On the 14th [1]." in response.content.decode()

    def test_the_page_links_to_both(self, chat: Conversation) -> None:
        page = operator().get(page_of(chat)).content.decode()
        assert f"{CONVERSATIONS}{chat.pk}/export.json" in page
        assert f"{CONVERSATIONS}{chat.pk}/export.md" in page

    def test_what_is_not_there(self) -> None:
        assert operator().get(f"{CONVERSATIONS}6c0b2bb6-7b52-4b3e-8e6b-4f2b6d7d6c10/export.json").status_code == 404


class TestPermissions:
    def test_nobody_adds_and_nobody_edits_what_the_machine_made(self, chat: Conversation) -> None:
        client = operator()
        answer, retrieval = chat.messages.get(role="assistant"), Retrieval.objects.get()
        for address in (CONVERSATIONS, MESSAGES, "/admin/chat/retrieval/"):
            assert client.get(f"{address}add/").status_code == 403
        for address in (f"{MESSAGES}{answer.pk}", f"/admin/chat/retrieval/{retrieval.pk}"):
            assert client.post(f"{address}/change/", {"content": "forged"}).status_code == 403
            assert client.post(f"{address}/delete/", {"post": "yes"}).status_code == 403

    def test_a_clerk_who_may_look_sees_no_button_and_can_do_nothing(self, chat: Conversation) -> None:
        client = operator(*VIEW_ALL)
        waiting = unfinished(chat)
        page = client.get(page_of(chat)).content.decode()
        assert "On the 14th [1]." in page
        assert "Stop the answer" not in page
        assert 'name="title"' not in page
        actions = re.findall(r'<option value="(\w+)">', client.get(CONVERSATIONS).content.decode())
        assert actions == ["export_lines"]
        for address in (f"{chat.pk}/cancel/", f"{chat.pk}/delete/", f"{chat.pk}/change/"):
            assert client.post(CONVERSATIONS + address, {"post": "yes", "title": "x"}).status_code == 403
        client.post(CONVERSATIONS, {"action": "cancel_answers", "_selected_action": [str(chat.pk)]})
        client.post(MESSAGES, {"action": "cancel_answers", "_selected_action": [str(waiting.pk)]})
        client.post(CONVERSATIONS, {"action": "delete_selected", "_selected_action": [str(chat.pk)], "post": "yes"})
        assert status_of(waiting) == (Status.QUEUED, "")

    @pytest.mark.parametrize("path", ["", "{pk}/change/", "{pk}/export.json", "{pk}/export.md", "{pk}/cancel/"])
    def test_staff_without_permission_sees_nothing(self, chat: Conversation, path: str) -> None:
        client = operator("view_logentry")
        address = CONVERSATIONS + path.format(pk=chat.pk)
        assert (client.post(address) if "cancel" in path else client.get(address)).status_code == 403

    @pytest.mark.parametrize("path", ["", "{pk}/change/", "{pk}/export.json", "{pk}/export.md", "{pk}/cancel/"])
    def test_strangers_are_sent_to_the_login(self, chat: Conversation, path: str) -> None:
        address = CONVERSATIONS + path.format(pk=chat.pk)
        response = Client().post(address) if "cancel" in path else Client().get(address)
        assert response.status_code == 302
        assert "/admin/login/" in response.headers["Location"]

    def test_stopping_wants_a_post_with_a_token(self, chat: Conversation) -> None:
        waiting = unfinished(chat)
        client = operator()
        assert client.get(f"{CONVERSATIONS}{chat.pk}/cancel/").status_code == 405
        strict = Client(enforce_csrf_checks=True)
        strict.cookies = client.cookies
        assert strict.post(f"{CONVERSATIONS}{chat.pk}/cancel/").status_code == 403
        assert status_of(waiting) == (Status.QUEUED, "")
