"""The page of one conversation, of one message and of one retrieval: readable, complete, harmless."""

import re
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape, strip_tags

from chat.admin.conversation_view import SUMMARIES_SHOWN
from chat.models import Message, Role, Summary
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

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&lt;"


@pytest.fixture
def client() -> Client:
    return operator()


def shown(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, response
    return response.content.decode()


def words(page: str) -> str:
    """The page's text on one line, as a reader meets it."""
    return " ".join(
        re.sub(r"<[^>]*>", " ", page.split('<section class="transcript', 1)[1].split("</section>")[0]).split()
    )


class TestReading:
    def test_messages_in_order_with_role_time_and_text(self, client: Client) -> None:
        chat = conversation()
        add_question(chat, "First line\n  second line")
        add_answer(chat, "Hello there")
        add_question(chat, "And now?")
        page = shown(client, page_of(chat))
        assert "First line\n  second line" in page
        text = words(page)
        assert text.index("User") < text.index("First line") < text.index("Assistant") < text.index("Hello there")
        assert text.index("Hello there") < text.index("And now?")

    def test_summaries_with_what_they_cover(self, client: Client) -> None:
        chat = conversation()
        add_question(chat)
        assert 'aria-label="Summaries"' not in shown(client, page_of(chat))
        Summary.objects.create(
            conversation=chat, version=1, state="made", covers_until=11, text="They <b>met</b>.", n_tokens=7
        )
        Summary.objects.create(conversation=chat, version=2, state="failed", covers_until=19, error="timeout")
        page = shown(client, page_of(chat))
        assert "They &lt;b&gt;met&lt;/b&gt;." in page
        text = " ".join(strip_tags(page).split())
        assert "Version 1 in use the first 12 messages in 7 tokens" in text
        assert text.index("Version 2 failed the first 20 messages") < text.index("timeout") < text.index("Version 1")
        assert page.count('<details class="summary" open>') == 1
        assert page.index("Version 2") < page.index('<details class="summary" open>') < page.index("Version 1")

    def test_what_a_prompt_left_out_and_recalled_and_why(self, client: Client) -> None:
        chat = conversation()
        add_question(chat)
        answer = add_answer(chat, "Dr. Osei.")
        assert answer.generation is not None
        recalled = {"position": 4, "role": "user", "said_at": None, "score": 0.456, "similarity": 0.5, "words": None}
        answer.generation.details = {
            "history": {
                "strategy": "summarize",
                "messages_left_out": 6,
                "messages_summarized": 12,
                "summary_version": 2,
                "summary": "failed: <timeout>",
                "recalled": [recalled, recalled | {"position": 9, "role": "assistant", "words": 0.25}],
                "recall_problem": "searched by words alone",
            }
        }
        answer.generation.save()
        text = words(shown(client, page_of(chat)))
        assert "summarized 12 messages by version 2" in text
        assert "left out 6 messages" in text
        assert "newer summary failed: &lt;timeout&gt;" in text
        assert "recalled #4 user 0.46 (similar 0.50), #9 assistant 0.46 (similar 0.50, words 0.25)" in text
        assert "recall searched by words alone" in text
        message = shown(client, f"/admin/chat/message/{answer.pk}/change/")
        assert "#4 user 0.46 (similar 0.50)" in message

    def test_of_many_summaries_the_newest_and_the_one_in_use(self, client: Client) -> None:
        chat = conversation()
        add_question(chat)
        Summary.objects.create(conversation=chat, version=1, state="made", covers_until=1, text="old")
        Summary.objects.create(conversation=chat, version=2, state="made", covers_until=3, text="in use")
        for version in range(3, 3 + SUMMARIES_SHOWN):
            Summary.objects.create(conversation=chat, version=version, state="failed", covers_until=5, error="timeout")
        text = " ".join(strip_tags(shown(client, page_of(chat))).split())
        assert "Version 2 in use" in text
        assert "Version 1 " not in text
        assert "1 older one is in the export and the API." in text

    def test_what_the_machine_knows_of_an_answer(self, client: Client) -> None:
        chat = conversation()
        add_answer(
            chat, finish_reason="length", devices=[{"device": "cpu", "tokens": 12}, {"device": "gpu", "tokens": 28}]
        )
        text = words(shown(client, page_of(chat)))
        for part in (
            "length",
            "CPU 12, GPU 28",
            "1,200 in, 40 out (800 from the cache)",
            "queue 20 ms",
            "prompt 300 ms",
            "first token 500 ms",
            "answer 2.0 s",
            "total 3.0 s",
            "20.0 tokens/s",
            "fake-it",
        ):
            assert part in text
        assert "GPU wait" not in text

    def test_a_failed_answer_says_why(self, client: Client) -> None:
        chat = conversation()
        add_answer(chat, "half", status="failed", finish_reason="", error_code="runner_crashed", error_message="thrice")
        text = words(shown(client, page_of(chat)))
        assert "failed" in text
        assert "half" in text
        assert "runner_crashed: thrice" in text

    def test_an_answer_under_way_is_not_called_empty(self, client: Client) -> None:
        chat = conversation()
        unfinished(chat, "running")
        text = words(shown(client, page_of(chat)))
        assert "running" in text
        assert "(no text)" not in text

    def test_an_answer_sent_by_a_client_has_no_numbers(self, client: Client) -> None:
        chat = conversation()
        Message.objects.create(conversation=chat, position=0, role=Role.ASSISTANT, content="I was told so")
        text = words(shown(client, page_of(chat)))
        assert "I was told so" in text
        assert "tokens" not in text

    def test_the_totals_and_the_system_prompt(self, client: Client) -> None:
        chat = conversation(system_prompt="Answer in verse.")
        add_answer(chat)
        page = shown(client, page_of(chat))
        assert "1 messages, 1,200 tokens in, 40 out" in page
        assert "Answer in verse." in page

    def test_an_empty_conversation(self, client: Client) -> None:
        assert "No message yet." in shown(client, page_of(conversation()))

    def test_a_conversation_that_is_not_there(self, client: Client) -> None:
        chat = conversation()
        address = page_of(chat)
        chat.delete()
        assert client.get(address).headers["Location"] == "/admin/"


class TestSources:
    def test_each_with_all_that_is_known_and_whether_it_was_cited(self, client: Client) -> None:
        chat = conversation()
        other = {"label": "2", "kind": "memory", "start_time": 723.4, "text": "Milk.", "score": None, "speaker": None}
        add_sources(add_answer(chat, "The 14th [1]."), SOURCE, other, filters={"speakers": ["Sarah"], "end_date": None})
        text = words(shown(client, page_of(chat)))
        assert "2 sources shown, 1 cited" in text
        assert "[1] cited Weekly Sarah 2026-11-17 10:03 calm transcript segment score 0.81 We cannot make" in text
        assert "[2] not cited at 0:12:03 memory Milk." in text
        assert "searched for deadline filters speakers: Sarah found 7 took 84 ms" in text

    def test_a_search_that_failed_is_in_sight(self, client: Client) -> None:
        chat = conversation()
        add_sources(add_answer(chat), error="timed out after 3.0 s", n_hits=0)
        page = shown(client, page_of(chat))
        assert '<details class="sources" open>' in page
        assert "timed out after 3.0 s" in words(page)

    @pytest.mark.parametrize(
        "source",
        [{}, {"label": None, "score": "high", "time": "yesterday", "start_time": "now", "text": None}, {"time": 5}],
    )
    def test_what_another_service_sent_may_be_anything(self, client: Client, source: dict[str, object]) -> None:
        chat = conversation()
        retrieval = add_sources(add_answer(chat, "[] [None]"), source)
        assert "not cited" in shown(client, page_of(chat))
        assert "not cited" in shown(client, f"/admin/chat/retrieval/{retrieval.pk}/change/")

    def test_an_answer_without_a_search_shows_none(self, client: Client) -> None:
        chat = conversation()
        add_answer(chat)
        assert 'class="sources"' not in shown(client, page_of(chat))


class TestHostileContent:
    def test_it_is_text_everywhere(self, client: Client) -> None:
        chat = conversation("service:" + HOSTILE[:50], title=HOSTILE, system_prompt=HOSTILE, summary=HOSTILE)
        question = add_question(chat, HOSTILE)
        answer = add_answer(
            chat,
            HOSTILE,
            status="failed",
            error_code="x<b>",
            error_message=HOSTILE,
            model_name=HOSTILE,
            devices=[{"device": HOSTILE, "tokens": HOSTILE}],
            params={"sampling": {"seed": HOSTILE}, "stop": [HOSTILE]},
        )
        source = dict.fromkeys(SOURCE, HOSTILE)
        retrieval = add_sources(answer, source, query=HOSTILE, error=HOSTILE, filters={HOSTILE: HOSTILE})
        for address in (
            page_of(chat),
            f"/admin/chat/conversation/{chat.pk}/delete/",
            f"/admin/chat/conversation/{chat.pk}/history/",
            f"/admin/chat/message/{question.pk}/change/",
            f"/admin/chat/message/{answer.pk}/change/",
            f"/admin/chat/retrieval/{retrieval.pk}/change/",
            "/admin/chat/conversation/",
            "/admin/chat/conversation/?q=" + quote(HOSTILE),
            "/admin/chat/message/",
            "/admin/chat/retrieval/",
        ):
            page = shown(client, address)
            assert "<script>alert" not in page, address
            assert "<img" not in page.replace('<img src="/static/', ""), address
            assert escape("<script>alert(1)") in page, address

    def test_no_inline_style_or_script_of_ours(self, client: Client) -> None:
        chat = conversation()
        add_sources(add_answer(chat), SOURCE)
        page = shown(client, page_of(chat))
        assert not re.search(r"\sstyle=|\son\w+=|<style", page)
        assert not re.search(r"<script(?![^>]*src=)", page)

    def test_links_of_the_model_are_no_links(self, client: Client) -> None:
        chat = conversation()
        add_answer(chat, "[click](javascript:alert(1)) https://example.org")
        assert "javascript:" not in re.findall(r'href="([^"]*)"', shown(client, page_of(chat)))
        assert 'href="https://example.org' not in shown(client, page_of(chat))


class TestLongConversations:
    def test_two_hundred_messages_cost_no_more_queries_than_two(self, client: Client) -> None:
        short, long = conversation(), conversation()
        for chat, turns in ((short, 1), (long, 100)):
            for _ in range(turns):
                add_question(chat)
                add_sources(add_answer(chat), SOURCE)
        costs = []
        for chat in (short, long):
            with CaptureQueriesContext(connection) as queries:
                page = shown(client, page_of(chat))
            costs.append(len(queries))
            assert page.count("<article") == chat.messages.count()
            assert not [query for query in queries if '"rendered"' in query["sql"] or '"prompt"' in query["sql"]]
        assert costs[0] == costs[1] <= 10

    def test_the_last_page_opens_first_and_leads_to_the_others(self, client: Client) -> None:
        chat = conversation()
        for number in range(203):
            add_question(chat, f"question {number}")
        page = shown(client, page_of(chat))
        assert "question 202" in page
        assert "question 199" not in page
        assert "messages 201 to 203 of 203" in page
        first = shown(client, page_of(chat) + "?page=1")
        assert "question 0" in first
        assert "?page=2" in first

    @pytest.mark.parametrize("number", ["0", "99", "x", "-1"])
    def test_a_page_that_is_not_there(self, client: Client, number: str) -> None:
        chat = conversation()
        add_question(chat, "the only one")
        assert "the only one" in shown(client, f"{page_of(chat)}?page={number}")


class TestOtherPages:
    def test_a_message_with_its_parameters_and_its_conversation(self, client: Client) -> None:
        chat = conversation(title="Parent")
        answer = add_answer(chat)
        page = shown(client, f"/admin/chat/message/{answer.pk}/change/")
        assert "seed 7, temperature 0.5, max_tokens 64" in page
        assert f'<a href="{page_of(chat)}">Parent</a>' in page
        assert "On the 14th [1]." in page

    def test_the_site_is_named(self, client: Client) -> None:
        page = shown(client, "/admin/")
        assert "Gemma Service" in page
        assert "Django administration" not in page

    def test_our_style_sheet_is_asked_for_and_there(self, client: Client) -> None:
        assert 'href="/static/chat/admin.css"' in shown(client, page_of(conversation()))
        sheet = client.get("/static/chat/admin.css")
        assert sheet.status_code == 200
        assert b".bubble" in sheet.getvalue()
