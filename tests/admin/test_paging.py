"""Pages of large lists: the first rows alone are counted and reached, with two queries for a page."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.admin.common import paging
from chat.models import Message
from tests.admin.builders import conversation, operator

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

LIST = "/admin/chat/message/"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(paging, "MOST_ROWS", 120)
    chat = conversation()
    rows = [Message(conversation=chat, position=n, role="user", content=f"m{n:03}") for n in range(130)]
    for row in rows:
        row.save()
    return operator()


def contents(client: Client, query: str = "") -> list[str]:
    response = client.get(LIST + query)
    assert response.status_code == 200, response
    return [row.content for row in response.context["cl"].result_list]


def test_pages_follow_one_another(client: Client) -> None:
    read = [text for number in (1, 2, 3) for text in contents(client, f"?p={number}")]
    assert read == [f"m{n:03}" for n in range(129, 9, -1)]


@pytest.mark.parametrize("number", [4, 1000])
def test_a_page_beyond_the_last_is_refused_as_before(client: Client, number: int) -> None:
    assert client.get(f"{LIST}?p={number}").status_code == 302


def test_the_count_says_that_there_are_more(client: Client) -> None:
    assert "over 120 messages" in client.get(LIST).content.decode()
    Message.objects.filter(position__gte=120).delete()
    page = client.get(LIST).content.decode()
    assert "120 messages" in page
    assert "over 120" not in page


def test_an_empty_list_and_the_order_that_was_chosen(client: Client) -> None:
    assert contents(client, "?q=nothing") == []
    assert contents(client, "?o=1")[0] == "m000"


def test_an_action_reaches_the_rows_of_its_page(client: Client) -> None:
    keys = [str(row.pk) for row in client.get(f"{LIST}?p=2").context["cl"].result_list[:3]]
    answer = client.post(f"{LIST}?p=2", {"action": "cancel_answers", "_selected_action": keys}, follow=True)
    assert "There was no unfinished answer." in answer.content.decode()


def test_no_query_reads_more_than_the_first_rows(client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        client.get(f"{LIST}?q=m")
    read = [query["sql"] for query in queries if 'FROM "chat_message"' in query["sql"]]
    assert len(read) == 2
    assert all("LIMIT 121" in sql or " IN (" in sql for sql in read)
