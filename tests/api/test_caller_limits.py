"""Limits of callers and groups: exact under parallel requests, told in headers, and the usage kept by day."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.contrib.auth.models import Group, User
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from chat.access import caller_limits, usage
from chat.access.caller_limits import NAMES, CallerLimits, forget_limits, limits_of
from chat.access.callers import Caller
from chat.errors import TooManyRequests, Unavailable
from chat.models import Conversation, GroupLimits
from chat.rag.models import Note
from inference.enums import Priority
from inference.errors import CallerLimit
from inference.models import DailyUsage, Generation, Status
from inference.queue import admission
from inference.queue import usage as counters
from inference.queue.results import CANCELLED
from inference.queue.termination import terminate
from tests.admin.builders import operator
from tests.api.calling import Api
from tests.api.people import access_token, bearer, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.databases]
URL, USAGE = "/api/conversations/", "/api/usage/"


@pytest.fixture(autouse=True)
def _fresh(redis_client: "redis.Redis[str]") -> Iterator[None]:
    """No counters and no limits of earlier tests."""
    forget_limits()
    yield
    forget_limits()


@pytest.fixture
def ann() -> User:
    return make_user()


def grouped(user: User, name: str, **limits: int | None) -> Group:
    group = Group.objects.create(name=name)
    GroupLimits.objects.create(group=group, **limits)
    user.groups.add(group)
    return group


class TestRequests:
    def test_the_last_one_and_the_next(self, settings: Settings) -> None:
        settings.LIMIT_REQUESTS_PER_MINUTE = 3
        answers = [Api().get(URL) for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0", "r=0"]
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert answers[3].outcome == (429, "rate_limited")
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 60

    def test_each_caller_counts_alone_and_services_do_not(self, ann: User, settings: Settings) -> None:
        settings.LIMIT_REQUESTS_PER_MINUTE = 1
        for headers in ({}, bearer(access_token(ann)), bearer(access_token(make_user("bob")))):
            assert [Api().get(URL, headers).status for _ in range(2)] == [200, 429]
        service = Caller.of_service("gateway")
        assert [usage.count_request(service) for _ in range(3)] == [None] * 3

    @pytest.mark.django_db(transaction=True)
    def test_both_kinds_of_views_count(self, settings: Settings) -> None:
        settings.LIMIT_REQUESTS_PER_MINUTE = 2
        assert [Api().get(path).status for path in ("/memory/list", URL, "/memory/stats", "/health")][:3] == [
            200,
            200,
            429,
        ]

    def test_a_hundred_at_once_get_exactly_the_limit(self, settings: Settings) -> None:
        settings.LIMIT_REQUESTS_PER_MINUTE = 10
        caller, let_through, gate = Caller.local(), [], threading.Barrier(100)

        def call() -> None:
            gate.wait()
            try:
                let_through.append(usage.count_request(caller))
            except TooManyRequests:
                pass
            finally:
                connection.close()

        threads = [threading.Thread(target=call) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(let_through) == 10

    def test_without_redis_no_one_with_a_limit_is_let_through(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = redis.Redis.from_url("unix:///nonexistent/valkey.sock")
        monkeypatch.setattr(counters, "shared_client", lambda: away)
        counters.limit_storage.cache_clear()
        try:
            assert Api().get(URL).status == 200
            settings.LIMIT_REQUESTS_PER_MINUTE = 10
            forget_limits()
            assert Api().get(URL).outcome == (503, "store_unavailable")
            settings.LIMIT_TOKENS_PER_MINUTE = 10
            forget_limits()
            with pytest.raises(Unavailable):
                usage.check_tokens(Caller.local())
            counters.record_minute(owner="local", n_tokens=5)  # an answer still ends
        finally:
            counters.limit_storage.cache_clear()


class TestWhichLimits:
    def test_those_of_the_settings(self, settings: Settings) -> None:
        assert limits_of(Caller.local()) == CallerLimits()
        for number, name in enumerate(NAMES, start=1):
            setattr(settings, f"LIMIT_{name.upper()}", number)
        forget_limits()
        assert limits_of(Caller.local()) == CallerLimits(1, 2, 3, 4, 5, 6)

    def test_the_largest_of_the_groups(self, ann: User, settings: Settings) -> None:
        settings.LIMIT_CONVERSATIONS = settings.LIMIT_MEMORIES = 100
        grouped(ann, "small", conversations=5, memories=5)
        grouped(ann, "middle", conversations=50, memories=None)
        assert limits_of(Caller.of_user(ann)).conversations == 50
        assert limits_of(Caller.of_user(ann)).memories == 5
        assert limits_of(Caller.of_user(make_user("bob"))).conversations == 100
        forget_limits()
        grouped(ann, "unlimited", conversations=0)
        assert limits_of(Caller.of_user(ann)).conversations is None

    def test_a_change_in_the_admin_is_in_force(self, ann: User) -> None:
        group = grouped(ann, "team", requests_per_minute=1)
        caller = Caller.of_user(ann)
        assert limits_of(caller).requests_per_minute == 1
        form = {"name": "team", "limits-TOTAL_FORMS": "1", "limits-INITIAL_FORMS": "1"}
        form |= {"limits-0-id": str(GroupLimits.objects.get(group=group).pk), "limits-0-group": str(group.pk)}
        form |= {"limits-0-requests_per_minute": "7"}
        response = operator().post(f"/admin/auth/group/{group.pk}/change/", form)
        assert response.status_code == 302, response.content
        assert limits_of(caller).requests_per_minute == 7

    def test_what_is_remembered_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(caller_limits, "MAX_CACHED", 10)
        for number in range(50):
            limits_of(Caller(f"user:{number}"))
        assert len(caller_limits._cached) <= 10


class TestTokens:
    def test_of_the_minute(self, settings: Settings) -> None:
        settings.LIMIT_TOKENS_PER_MINUTE = 100
        caller = Caller.local()
        counters.record_minute(owner="local", n_tokens=99)
        usage.check_tokens(caller)
        counters.record_minute(owner="local", n_tokens=500)
        with pytest.raises(TooManyRequests) as caught:
            usage.check_tokens(caller)
        assert (caught.value.code, 1 <= (caught.value.retry_after_secs or 0) <= 60) == ("token_limit", True)
        usage.check_tokens(Caller("user:1"))

    def test_of_the_day(self, settings: Settings) -> None:
        settings.LIMIT_TOKENS_PER_DAY = 100
        today = timezone.now().date()
        DailyUsage.objects.create(owner="local", day=today - timedelta(days=1), n_prompt_tokens=1000)
        usage.check_tokens(Caller.local())
        for _ in range(2):
            counters.record_day(owner="local", n_prompt_tokens=30, n_completion_tokens=20)
        with pytest.raises(TooManyRequests) as caught:
            usage.check_tokens(Caller.local())
        assert 1 <= (caught.value.retry_after_secs or 0) <= 86_400
        row = DailyUsage.objects.get(day=today)
        assert (row.n_generations, row.n_prompt_tokens, row.n_completion_tokens) == (2, 60, 40)

    @pytest.mark.django_db(transaction=True)
    def test_a_turn_is_refused_and_stores_nothing(self, settings: Settings, no_broker: None) -> None:
        settings.LIMIT_TOKENS_PER_DAY = 1
        counters.record_day(owner="local", n_prompt_tokens=1, n_completion_tokens=0)
        for path, body in (
            ("/chat", {"message": "x"}),
            ("/generate", {"prompt": "x"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ):
            answer = Api().post(path, body)
            assert answer.status == 429, answer.body
            assert int(answer.headers["Retry-After"]) >= 1
        assert not Conversation.objects.exists()
        assert not Generation.objects.exists()


class TestStoredThings:
    def test_answers_at_once(self) -> None:
        for number in range(2):
            Generation.objects.create(owner="local", params={}, status=Status.RUNNING, priority=1 + number)
        admission.require_capacity(owner="local", priority=Priority.INTERACTIVE, max_of_owner=3)
        with pytest.raises(CallerLimit):
            admission.require_capacity(owner="local", priority=Priority.INTERACTIVE, max_of_owner=2)
        admission.require_capacity(owner="user:1", priority=Priority.INTERACTIVE, max_of_owner=2)

    def test_conversations(self, settings: Settings) -> None:
        settings.LIMIT_CONVERSATIONS = 2
        assert [Api().post(URL, {}).status for _ in range(3)] == [201, 201, 429]
        assert Api().post(URL, {}).outcome == (429, "conversation_limit")
        Conversation.objects.all()[0].delete()
        assert Api().post(URL, {}).status == 201

    @pytest.mark.django_db(transaction=True)
    def test_memories(self, settings: Settings) -> None:
        settings.LIMIT_MEMORIES = 3
        note = {"title": "t", "body": "b"}
        assert Api().post("/memory/add", note).status == 200
        lines = {"job_id": "j", "segments": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}
        assert Api().post("/index/transcript", lines).outcome == (429, "memory_limit")
        assert Api().post("/index/transcript", lines | {"segments": lines["segments"][:2]}).status == 200
        assert Api().post("/memory/add", note).outcome == (429, "memory_limit")
        assert Note.objects.count() == 1


class TestUsage:
    def test_the_report(self, ann: User, settings: Settings) -> None:
        settings.LIMIT_REQUESTS_PER_MINUTE = 50
        owner = f"user:{ann.pk}"
        counters.record_day(owner=owner, n_prompt_tokens=30, n_completion_tokens=12)
        counters.record_day(owner="local", n_prompt_tokens=999, n_completion_tokens=9)
        counters.record_minute(owner=owner, n_tokens=42)
        Conversation.objects.create(owner=owner)
        report = Api().get(USAGE, bearer(access_token(ann))).body
        assert report["limits"]["requests_per_minute"] == 50
        assert report["limits"]["memories"] is None
        assert report["now"] == {
            "requests_this_minute": 1,
            "tokens_this_minute": 42,
            "tokens_today": 42,
            "answers_under_way": 0,
            "conversations": 1,
            "memories": 0,
        }
        (day,) = report["days"]
        assert (day["answers"], day["prompt_tokens"], day["completion_tokens"], day["total_tokens"]) == (1, 30, 12, 42)

    def test_a_terminated_answer_without_tokens_counts_for_nothing(self, no_broker: None) -> None:
        row = Generation.objects.create(owner="local", params={}, status=Status.QUEUED)
        assert terminate(row.pk, CANCELLED)
        assert not DailyUsage.objects.exists()

    def test_in_the_admin(self) -> None:
        counters.record_day(owner="local", n_prompt_tokens=30, n_completion_tokens=12)
        assert "local" in operator().get("/admin/inference/dailyusage/").content.decode()
