"""The operators' lists: rows, filters, search, and the number of queries of a page."""

import re
from datetime import date, timedelta
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.models import Conversation
from inference.models import DailyUsage, Generation
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

CONVERSATIONS = "/admin/chat/conversation/"
MESSAGES = "/admin/chat/message/"
RETRIEVALS = "/admin/chat/retrieval/"
GENERATIONS = "/admin/inference/generation/"


@pytest.fixture
def client() -> Client:
    return operator()


def titles(client: Client, query: str = "") -> set[str]:
    response = client.get(CONVERSATIONS + query)
    assert response.status_code == 200, response
    return {row.title for row in response.context["cl"].result_list}


def shown(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200, response
    return response.content.decode()


def test_no_page_shows_refresh_tokens(client: Client) -> None:
    assert "token_blacklist" not in shown(client, "/admin/")
    assert client.get("/admin/token_blacklist/outstandingtoken/").status_code == 404


class TestConversationRows:
    def test_sums_and_means_of_the_answers(self, client: Client) -> None:
        chat = conversation()
        add_question(chat)
        add_answer(chat, n_prompt_tokens=1000, n_completion_tokens=30, total_secs=2.0)
        add_question(chat)
        add_answer(chat, n_prompt_tokens=1500, n_completion_tokens=10, total_secs=4.0, timings={"first_token": 700.0})
        page = shown(client, CONVERSATIONS)
        assert '<td class="field-n_messages">4</td>' in page
        assert '<td class="field-tokens">2,500 / 40</td>' in page
        assert '<td class="field-mean_times">600 ms / 3.0 s</td>' in page

    def test_an_answer_that_ended_before_its_first_token_has_no_time_of_it(self, client: Client) -> None:
        chat = conversation()
        add_answer(
            chat, "", status="interrupted", error_code="timeout", n_completion_tokens=0, timings={"first_token": 0.0}
        )
        assert '<td class="field-mean_times">- / 3.0 s</td>' in shown(client, CONVERSATIONS)
        assert '<td class="field-times">- / 3.0 s</td>' in shown(client, MESSAGES)
        add_answer(chat, timings={"first_token": 700.0}, total_secs=5.0)
        assert '<td class="field-mean_times">700 ms / 4.0 s</td>' in shown(client, CONVERSATIONS)

    def test_a_conversation_without_messages(self, client: Client) -> None:
        conversation()
        page = shown(client, CONVERSATIONS)
        assert '<td class="field-n_messages">0</td>' in page
        assert '<td class="field-mean_times">- / -</td>' in page

    @pytest.mark.parametrize(
        ("status", "error_code", "state"),
        [
            ("running", "", "answering"),
            ("failed", "runner_crashed", "1 failed"),
            ("failed", "timeout", "1 failed"),
            ("interrupted", "", "1 stopped"),
            ("interrupted", "timeout", "1 timed out"),
            ("complete", "", "-"),
        ],
    )
    def test_the_state_says_what_needs_attention(
        self, client: Client, status: str, error_code: str, state: str
    ) -> None:
        add_answer(conversation(), status=status, error_code=error_code)
        assert f'<td class="field-state">{state}</td>' in shown(client, CONVERSATIONS)

    def test_several_outcomes_are_counted_apart(self, client: Client) -> None:
        chat = conversation()
        for status, code in (("interrupted", ""), ("failed", "odd"), ("interrupted", "timeout"), ("interrupted", "")):
            add_answer(chat, status=status, error_code=code)
        assert '<td class="field-state">1 failed, 1 timed out, 2 stopped</td>' in shown(client, CONVERSATIONS)

    def test_owners_are_named(self, client: Client) -> None:
        alice = User.objects.create_user("alice")
        for owner in (f"user:{alice.pk}", "user:99999", "local", "service:gateway", "user:" + "9" * 40, "odd"):
            conversation(owner)
        page = shown(client, CONVERSATIONS)
        for name in ("alice", "deleted user 99999", "local (no login)", "service gateway", "odd"):
            assert f'<td class="field-owner_label">{name}</td>' in page

    def test_an_untitled_one_can_still_be_opened(self, client: Client) -> None:
        chat = conversation(title="")
        assert f"(no title) {str(chat.pk)[:8]}" in shown(client, CONVERSATIONS)

    def test_the_latest_comes_first(self, client: Client) -> None:
        for title in ("first", "second", "third"):
            conversation(title=title)
        Conversation.objects.get(title="first").save()
        rows = client.get(CONVERSATIONS).context["cl"].result_list
        assert [row.title for row in rows] == ["first", "third", "second"]


class TestFilters:
    def test_by_owner(self, client: Client) -> None:
        conversation("local", title="ours")
        conversation("service:x", title="theirs")
        assert titles(client, "?owner=local") == {"ours"}
        assert titles(client, "?owner=nobody") == set()

    def test_an_owner_beyond_the_busiest_is_offered_when_chosen(self, client: Client) -> None:
        for number in range(35):
            conversation(f"service:{number:02d}")
            conversation(f"service:{number:02d}")
        conversation("service:rare")
        assert "service rare" not in shown(client, CONVERSATIONS).split('id="changelist-filter"')[1]
        assert "service rare" in shown(client, CONVERSATIONS + "?owner=service:rare").split('id="changelist-filter"')[1]

    def test_by_date(self, client: Client) -> None:
        conversation(title="new")
        old = conversation(title="old")
        Conversation.objects.filter(pk=old.pk).update(updated_at=timezone.now() - timedelta(days=40))
        since = (timezone.now() - timedelta(days=7)).strftime("%Y-%m-%d %H:%M:%S%z")
        assert titles(client, f"?updated_at__gte={quote(since)}") == {"new"}

    @pytest.mark.parametrize(
        ("value", "expected"),
        [("unfinished", {"q", "r"}), ("running", {"r"}), ("failed", {"f"}), ("complete", {"c", "f"}), ("odd", set())],
    )
    def test_by_status_of_any_answer(self, client: Client, value: str, expected: set[str]) -> None:
        for title, status in (("q", "queued"), ("r", "running"), ("f", "failed"), ("c", "complete")):
            add_answer(conversation(title=title), status=status)
        failed = Conversation.objects.get(title="f")
        add_answer(failed)
        add_answer(failed)
        assert titles(client, f"?status={value}") == expected

    def test_by_a_deadline_that_stopped_an_answer(self, client: Client) -> None:
        add_answer(conversation(title="late"), status="interrupted", error_code="timeout")
        add_answer(conversation(title="stopped"), status="interrupted")
        assert titles(client, "?status=timeout") == {"late"}
        assert titles(client, "?status=interrupted") == {"late", "stopped"}

    def test_by_device_of_any_answer(self, client: Client) -> None:
        add_answer(conversation(title="cpu"))
        add_answer(conversation(title="both"), devices=[{"device": "cpu", "tokens": 3}, {"device": "gpu", "tokens": 9}])
        conversation(title="none")
        assert titles(client, "?device=gpu") == {"both"}
        assert titles(client, "?device=cpu") == {"cpu", "both"}

    def test_by_sources(self, client: Client) -> None:
        add_sources(add_answer(conversation(title="given")), SOURCE)
        add_sources(add_answer(conversation(title="empty")))
        add_sources(add_answer(conversation(title="broken")), error="timed out")
        add_answer(conversation(title="not asked"))
        assert titles(client, "?sources=yes") == {"given"}
        assert titles(client, "?sources=empty") == {"empty"}
        assert titles(client, "?sources=error") == {"broken"}

    def test_a_conversation_with_many_such_answers_is_one_row(self, client: Client) -> None:
        chat = conversation(title="once")
        for _ in range(3):
            add_answer(chat)
        rows = client.get(CONVERSATIONS + "?status=complete&device=cpu&q=14th").context["cl"].result_list
        assert [row.title for row in rows] == ["once"]


class TestSearch:
    @pytest.fixture(autouse=True)
    def _rows(self) -> None:
        alice = User.objects.create_user("alice")
        self.chat = conversation(f"user:{alice.pk}", title="Rig")
        add_question(self.chat, "Was the oven hot?")
        self.answer = add_answer(self.chat, "Nobody measured it.")
        conversation(title="Other")

    @pytest.mark.parametrize("words", ["rig", "OVEN", "measured", "alice", "oven+hot", "%22the+oven%22"])
    def test_titles_messages_answers_and_users(self, client: Client, words: str) -> None:
        assert titles(client, f"?q={words}") == {"Rig"}

    @pytest.mark.parametrize("words", ["oven+cold", "%25", "nothing"])
    def test_what_is_nowhere(self, client: Client, words: str) -> None:
        assert titles(client, f"?q={words}") == set()

    def test_ids_as_they_stand_in_logs(self, client: Client) -> None:
        assert self.answer.generation is not None
        for pk in (self.chat.pk, self.answer.pk, self.answer.generation.pk, self.answer.generation.pk.hex):
            assert titles(client, f"?q={pk}") == {"Rig"}


class TestMessageRows:
    def test_an_answer_and_a_question(self, client: Client) -> None:
        chat = conversation()
        add_question(chat, "Where   is\nit? " + "x" * 500)
        add_answer(
            chat, "", status="failed", finish_reason="", error_code="runner_crashed", error_message="three times"
        )
        page = shown(client, MESSAGES)
        assert '<td class="field-outcome">failed: runner_crashed</td>' in page
        assert '<td class="field-tokens">1,200 / 40</td>' in page
        assert '<td class="field-times">500 ms / 3.0 s</td>' in page
        assert '<td class="field-device">CPU</td>' in page
        assert "Where is it? xxx" in page
        assert "x" * 200 not in page

    @pytest.mark.parametrize(
        ("query", "n"),
        [("role__exact=user", 1), ("finish_reason=length", 1), ("device=gpu", 0), ("q=length", 0), ("", 3)],
    )
    def test_filters(self, client: Client, query: str, n: int) -> None:
        chat = conversation()
        add_question(chat)
        add_answer(chat, finish_reason="length")
        add_answer(chat)
        assert len(client.get(f"{MESSAGES}?{query}").context["cl"].result_list) == n

    def test_the_conversation_is_named_and_linked(self, client: Client) -> None:
        named, untitled = conversation(title="Rig"), conversation(title="")
        add_question(named)
        add_question(untitled)
        page = shown(client, MESSAGES)
        assert f'<a href="{page_of(named)}">Rig</a>' in page
        assert f'<a href="{page_of(untitled)}">(no title) {str(untitled.pk)[:8]}</a>' in page


class TestRetrievalRows:
    def test_what_was_searched_and_found(self, client: Client) -> None:
        add_sources(add_answer(conversation()), SOURCE, SOURCE)
        page = shown(client, RETRIEVALS)
        assert '<td class="field-n_sources">2</td>' in page
        assert '<td class="field-latency">84 ms</td>' in page

    @pytest.mark.parametrize(("outcome", "n"), [("sources", 1), ("empty", 1), ("error", 1)])
    def test_filters(self, client: Client, outcome: str, n: int) -> None:
        add_sources(add_answer(conversation()), SOURCE)
        add_sources(add_answer(conversation()))
        add_sources(add_answer(conversation()), error="timed out")
        assert len(client.get(f"{RETRIEVALS}?outcome={outcome}").context["cl"].result_list) == n


class TestGenerationRows:
    def test_names_units_and_the_conversation(self, client: Client) -> None:
        alice = User.objects.create_user("alice")
        add_answer(chat := conversation(f"user:{alice.pk}", title="Rig"))
        page = shown(client, GENERATIONS)
        for cell in (
            f'<td class="field-in_conversation"><a href="{page_of(chat)}">Rig</a></td>',
            '<td class="field-owner_label">alice</td>',
            '<td class="field-tokens">1,200 / 40</td>',
            '<td class="field-times">500 ms / 3.0 s</td>',
            '<td class="field-speed">20.0 tokens/s</td>',
        ):
            assert cell in page

    def test_search_by_ids_and_users(self, client: Client) -> None:
        alice = User.objects.create_user("alice")
        answer = add_answer(conversation(f"user:{alice.pk}"))
        add_answer(conversation("service:gateway"))
        for words, n in (
            (str(answer.generation_id), 1),
            (str(answer.conversation_id), 1),
            ("ALICE", 1),
            ("service:gateway", 1),
            (" ", 2),
            (str(alice.pk), 0),
            ("%", 0),
        ):
            rows = client.get(GENERATIONS, {"q": words}).context["cl"].result_list
            assert len(rows) == n, words

    @pytest.mark.parametrize(("query", "n"), [("status__exact=queued", 1), ("status__exact=complete", 2), ("", 3)])
    def test_the_live_view(self, client: Client, query: str, n: int) -> None:
        chat = conversation()
        add_answer(chat)
        add_answer(chat)
        unfinished(chat)
        assert len(client.get(f"{GENERATIONS}?{query}").context["cl"].result_list) == n


class TestQueries:
    """A page costs the same with few rows and with many."""

    @staticmethod
    def cost(client: Client, address: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert client.get(address).status_code == 200
        return len(queries)

    @pytest.mark.parametrize("address", [CONVERSATIONS, MESSAGES, RETRIEVALS, GENERATIONS])
    def test_of_a_list(self, client: Client, address: str) -> None:
        first = User.objects.create_user("first")
        add_sources(add_answer(conversation(f"user:{first.pk}")), SOURCE)
        few = self.cost(client, address)
        for number in range(25):
            user = User.objects.create_user(f"user{number}")
            chat = conversation(f"user:{user.pk}", title=f"{number}")
            add_question(chat)
            add_sources(add_answer(chat), SOURCE)
            unfinished(chat)
        assert self.cost(client, address) == few <= 9

    def test_binary_columns_stay_in_the_database(self, client: Client) -> None:
        add_sources(add_answer(conversation()), SOURCE)
        for address in (CONVERSATIONS, MESSAGES, RETRIEVALS):
            with CaptureQueriesContext(connection) as queries:
                client.get(address)
            assert not [query for query in queries if '"rendered"' in query["sql"] or '"prompt"' in query["sql"]]


def test_the_usage_of_a_day_has_names_and_units() -> None:
    client, ann = operator(), User.objects.create_user("ann")
    for owner in (f"user:{ann.pk}", "local"):
        figures = {"n_generations": 1_200, "n_prompt_tokens": 2_500_000, "n_completion_tokens": 34_000}
        DailyUsage.objects.create(owner=owner, day=date(2026, 3, 1), **figures)
    page = client.get("/admin/inference/dailyusage/").content.decode()
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "2026-03-01 ann 1,200 2,500,000 34,000" in text
    assert "2026-03-01 local (no login) 1,200" in text
    assert "Tokens read" in text
    found = client.get("/admin/inference/dailyusage/?q=ann").content.decode()
    assert ">ann<" in found
    assert "no login" not in found


def test_hand_overs_count_no_filter_over_the_whole_table() -> None:
    assert "Show counts" not in operator().get("/admin/inference/handover/").content.decode()


def test_the_title_of_a_generation_is_short() -> None:
    row = Generation.objects.create(owner="local", status="complete")
    page = operator().get(f"/admin/inference/generation/{row.pk}/change/").content.decode()
    assert f"<h2>{str(row.pk)[:8]}, complete</h2>" in page
