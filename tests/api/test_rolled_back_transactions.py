"""Transactions that the database rolled back in favour of others, as the caller of a route sees them."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import pytest
from django.db import OperationalError

from chat.access import tokens
from chat.access.tokens import FamilyToken
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


@pytest.mark.parametrize("state", ["40P01", "40001", "55P03"])
def test_a_refresh_that_was_rolled_back_used_no_token(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = tokens.begin_family(make_user())
    with monkeypatch.context() as patch:
        patch.setattr(FamilyToken, "successor", failing_first(FamilyToken.successor, state))
        assert Api().post(REFRESH, {"refresh": pair.refresh}).outcome == (503, "store_unavailable")
    assert Api().post(REFRESH, {"refresh": pair.refresh}).status == 200
