"""Transactions that the database rolled back in favour of others, as the caller of a route sees them."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest
from django.db import OperationalError

from chat.access import tokens
from chat.access.tokens import FamilyToken
from chat.models import Conversation, Message
from chat.rag.indexing import indexer
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.records import SegmentIn, TranscriptIn
from chat.services import conversations
from inference.models import Generation, Status
from inference.queue import generations
from inference.runtime import database
from tests.api.calling import Api
from tests.api.people import make_user

pytestmark = [pytest.mark.django_db(transaction=True)]
P = ParamSpec("P")
T = TypeVar("T")
REFRESH = "/api/token/refresh/"


class Refused(Exception):
    """An error as psycopg raises it."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def failing_first(work: Callable[P, T], *states: str) -> Callable[P, T]:
    """Raises an error of each of these SQLSTATEs before it works."""
    errors = [OperationalError(state) for state in states]
    for error, state in zip(errors, states, strict=True):
        error.__cause__ = Refused(state)

    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if errors:
            raise errors.pop(0)
        return work(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (("40P01", "40001"), 200),
        (("55P03",) * 4, 200),
        (("40P01",) * 5, 503),
        (("57014",), 503),  # cancelled by an operator, not for another transaction
        (("40P01", "08006"), 503),  # the second time the connection broke, and the outcome is unknown
    ],
)
def test_a_cancel(states: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FIRST_PAUSE_SECS", 0.001)
    row = Generation.objects.create(owner="local", params={}, status=Status.QUEUED, prompt=b"")
    monkeypatch.setattr(generations, "request_cancel", failing_first(generations.request_cancel, *states))
    answer = Api().post(f"/api/generations/{row.pk}/cancel")
    assert answer.status == status
    if status == 503:
        assert answer.outcome == (503, "store_unavailable")
        assert "Retry-After" in answer.headers
    row.refresh_from_db()
    assert (row.status == Status.QUEUED) == (status == 503)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FIRST_PAUSE_SECS", 0.001)


@pytest.mark.parametrize("state", ["40P01", "40001", "55P03"])
@pytest.mark.parametrize("n_times", [1, 5])
def test_a_refresh_that_was_rolled_back_used_no_token(
    n_times: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = tokens.begin_family(make_user())
    with monkeypatch.context() as patch:
        patch.setattr(FamilyToken, "successor", failing_first(FamilyToken.successor, *[state] * n_times))
        answer = Api().post(REFRESH, {"refresh": pair.refresh})
    if n_times == 1:
        assert answer.status == 200
        assert answer.body["refresh"] != pair.refresh
        assert Api().post(REFRESH, {"refresh": answer.body["refresh"]}).status == 200
    else:
        assert answer.outcome == (503, "store_unavailable")
        assert Api().post(REFRESH, {"refresh": pair.refresh}).status == 200


def conversation() -> str:
    row = Conversation.objects.create(owner="local", title="before")
    row.messages.create(position=0, role="user", content="Hello")
    return f"/api/conversations/{row.pk}/"


def note() -> str:
    return f"/memory/{indexer.add_note(owner='local', title='t', body='b').pk}"


def transcript() -> str:
    said = TranscriptIn(job_id="j", segments=(SegmentIn(text="one"),))
    indexer.index_transcript(owner="local", transcript=said)
    return "/transcript/j"


NOTE = {"title": "t", "body": "the body"}
LINES = {"job_id": "j", "segments": [{"text": "two"}, {"text": "three"}]}
# What is sent, and the last of the steps of its transaction, which is rolled back with all others.
WRITES: list[tuple[str, str | Callable[[], str], object, tuple[object, str]]] = [
    ("PATCH", conversation, {"title": "after"}, (Conversation, "save")),
    ("DELETE", conversation, None, (conversations, "purge_conversation")),
    ("POST", "/memory/add", NOTE, (Passage.objects, "bulk_create")),
    ("DELETE", note, None, (indexer, "purge_note")),
    ("POST", "/index/transcript", LINES, (Passage.objects, "bulk_create")),
    ("DELETE", transcript, None, (indexer, "purge_transcript")),
]


@pytest.mark.parametrize("n_times", [1, 5])
@pytest.mark.parametrize(("method", "path", "body", "step"), WRITES)
def test_a_write(
    method: str,
    path: str | Callable[[], str],
    body: object,
    step: tuple[object, str],
    n_times: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database ends it as a deadlock once, which the caller does not see, or always, and then nothing is stored."""
    target = path() if callable(path) else path
    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(*step, failing_first(getattr(*step), *["40P01"] * n_times))
        answer = Api().call(method, target, body)
    if n_times == 1:
        assert answer.status in (200, 201, 204)
        assert contents() != before
    else:
        assert answer.outcome == (503, "store_unavailable")
        assert contents() == before
        assert Api().call(method, target, body).status in (200, 201, 204)


def test_a_recording_that_replaces_another_in_the_second_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    transcript()
    with monkeypatch.context() as patch:
        create = failing_first(Passage.objects.bulk_create, "40P01", "40001")
        patch.setattr(Passage.objects, "bulk_create", create)
        assert Api().post("/index/transcript", LINES).status in (200, 201)
    assert list(Segment.objects.order_by("position").values_list("text", flat=True)) == ["two", "three"]
    assert Transcript.objects.get().segments.count() == 2


def contents() -> list[object]:
    kinds = (Conversation, Message, Note, Transcript, Segment, Passage)
    return [row for kind in kinds for row in sorted(map(str, kind._default_manager.values_list()))]
