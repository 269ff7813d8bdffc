"""The front page: charts and lists of a period, from the rollups alone, as far as an operator may see them."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.admin.front_page.charts import Form, chart, nice_top
from chat.models import Rollup, Span
from chat.rag.models import Note, Segment, Transcript
from chat.services.rollups import advancing
from chat.services.rollups.reading import DIVISIONS, Period, sums_of
from inference.models import DailyUsage
from tests.admin.builders import SOURCE, add_answer, add_question, add_sources, conversation, operator

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


@pytest.fixture
def client() -> Client:
    return operator()


def shown(client: Client, address: str = "/admin/") -> str:
    response = client.get(address)
    assert response.status_code == 200, response
    return response.content.decode()


def add_up() -> None:
    while advancing.advance(timezone.now() + timedelta(seconds=2 * advancing.SETTLE_SECS)):
        pass


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


class TestPage:
    def test_an_empty_installation(self, client: Client) -> None:
        page = shown(client)
        assert "Nothing was summed up yet." in page
        assert "chart-drawing" not in page

    @pytest.mark.parametrize("period", ["day", "week", "month", "year", "", "century"])
    def test_figures_of_each_period(self, client: Client, period: str) -> None:
        add_question(chat := conversation())
        answer = add_answer(chat, total_secs=0.0)
        add_sources(answer, SOURCE)
        add_up()
        page = shown(client, f"/admin/?period={period}")
        text = text_of(page)
        assert "Conversations begun 1 1 questions" in text
        assert "Tokens written 40 1,200 read" in text
        assert "Prompts from the cache 67 %" in text
        assert page.count("chart-drawing") >= 8
        assert page.count('aria-current="true"') == 1
        # The same for readers who see no chart.
        assert re.search(r"<th scope=\"row\">[^<]+</th><td>conversations: 1, questions: 1</td>", page)

    def test_names_come_from_the_rows_that_still_exist(self, client: Client) -> None:
        transcript = Transcript.objects.create(job_id="1", title="Weekly <b>talk</b>")
        rows = [
            Segment.objects.create(transcript=transcript, position=n, text="x", speaker=speaker, said_at=timezone.now())
            for n, speaker in enumerate(("Sarah", "Tom"))
        ]
        note = Note.objects.create(title="Wifi", body="x")
        ids = [("transcript_segment", rows[0].pk), ("transcript_segment", rows[1].pk), ("memory", note.pk)]
        for kind, pk in (*ids, ids[0], ("transcript_segment", 10**6), ("memory", "x"), ("odd", "../1")):
            add_question(chat := conversation())
            add_sources(add_answer(chat, total_secs=0.0), SOURCE | {"kind": kind, "doc_id": str(pk)})
        add_up()
        text = text_of(shown(client))
        assert "Weekly &lt;b&gt;talk&lt;/b&gt; 3 Wifi 1" in text
        assert "Sarah 2 Tom 1" in text
        rows[0].delete()
        assert "Sarah" not in text_of(shown(client))

    def test_questions_without_a_hit_lead_to_their_search(self, client: Client) -> None:
        add_question(chat := conversation())
        retrieval = add_sources(add_answer(chat, "No.", total_secs=0.0), query="<i>where</i>", n_hits=0)
        add_up()
        page = shown(client)
        assert f'<a href="/admin/chat/retrieval/{retrieval.pk}/change/">&lt;i&gt;where&lt;/i&gt;</a>' in page
        retrieval.delete()
        assert "nothing was found" not in shown(client)

    def test_tokens_of_users_of_the_period(self, client: Client) -> None:
        alice = User.objects.create_user("alice")
        for days, n_tokens in ((0, 1000), (20, 500)):
            DailyUsage.objects.create(
                owner=f"user:{alice.pk}", day=timezone.now().date() - timedelta(days=days), n_prompt_tokens=n_tokens
            )
        assert "alice 1,000" in text_of(shown(client, "/admin/?period=week"))
        assert "alice 1,500" in text_of(shown(client, "/admin/?period=month"))

    def test_what_an_operator_may_not_see_is_not_there(self) -> None:
        DailyUsage.objects.create(owner="service:gateway", day=timezone.now().date(), n_prompt_tokens=7)
        assert "Overview" not in shown(operator("view_message"))
        User.objects.all().delete()
        page = shown(operator("view_conversation"))
        assert "Overview" in page
        assert "gateway" not in page
        assert Client().get("/admin/").status_code == 302

    def test_it_reads_rollups_alone_and_as_much_for_a_year_of_use(self, client: Client) -> None:
        start = timezone.now().replace(minute=0, second=0, microsecond=0)
        figures = {"n": 3, "tokens_in": 90, "tokens_out": 9, "first_token_ms": {"60": 3}, "held_secs": {"x": 9}}
        rows = [
            Rollup(span=span, starts_at=start - length * n, kind=kind, figures=figures)
            for span, length, n_rows in ((Span.HOUR, timedelta(hours=1), 200), (Span.DAY, timedelta(days=1), 380))
            for n in range(n_rows)
            for kind in ("generations", "chat", "retrievals", "gpu")
        ]
        Rollup.objects.bulk_create(rows)
        for period in Period:
            with CaptureQueriesContext(connection) as queries:
                page = shown(client, f"/admin/?period={period.value}")
            assert len(queries) <= 12
            assert not [query for query in queries if "chat_message" in query["sql"]]
            assert len(page) < 300_000


class TestSteps:
    @pytest.mark.parametrize("period", Period)
    def test_every_moment_of_a_period_is_in_one_step(self, period: Period) -> None:
        now = timezone.now()
        sums = sums_of(period, now)
        _, span, n_units, n_steps = DIVISIONS[period]
        assert len(sums.steps) == n_steps
        unit = timedelta(hours=1) if span == Span.HOUR else timedelta(days=1)
        first, last = sums.steps[0].starts_at, sums.steps[-1].starts_at
        assert last <= now < last + unit * n_units
        Rollup.objects.bulk_create(
            Rollup(span=span, starts_at=first + unit * n, kind="chat", figures={"questions": 1})
            for n in range(-2, n_units * n_steps + 2)
        )
        filled: list[Any] = [step.figures["chat"]["questions"] for step in sums_of(period, now).steps]
        # One that lies in the future, as after the clock was set back, counts with the last.
        assert filled == [n_units] * (n_steps - 1) + [n_units + 2]


class TestChart:
    @pytest.mark.parametrize(
        ("value", "top"), [(1, 1), (0.3, 0.4), (2.0, 2), (2.1, 4), (5, 10), (99, 100), (101, 200), (0.01, 0.01)]
    )
    def test_the_scale_ends_at_a_round_number(self, value: float, top: float) -> None:
        assert nice_top(value) == pytest.approx(top)

    def test_bars_are_stacked(self) -> None:
        drawn = chart("t", Form.BARS, ["a", "b"], [("x", [1, 0]), ("y", [3, 0])])
        assert [(bar.x, bar.y, bar.height) for bar in drawn.bars] == [("50", "150", "50"), ("50", "0", "150")]
        assert drawn.scale == ("4", "2", "0")

    def test_a_line_has_gaps(self) -> None:
        drawn = chart("t", Form.LINES, list("abcd"), [("x", [1, None, 2, 2])])
        assert drawn.lines[0].path == "M125 100h62.5M625 0L875 0"

    def test_nothing_is_no_chart(self) -> None:
        assert chart("t", Form.BARS, ["a"], [("x", [0])]).is_empty
        assert chart("t", Form.LINES, [], [("x", [])]).is_empty
