"""Passing errors of the database, and the number of retries."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import InterfaceError, OperationalError, connection

from inference.runtime import database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "RETRY_SECS", 0.01)
    monkeypatch.setattr(database, "FIRST_PAUSE_SECS", 0.001)


def answering(answers: list[Exception | bool]) -> Callable[[], bool]:
    """Returns or raises the values in order; the list holds the remaining ones."""

    def move() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return move


def failed_with(cause: Exception) -> OperationalError:
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


class Refused(Exception):
    """An error as psycopg raises it."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def locked(folder: Path) -> OperationalError:
    """The error of a database that another connection writes to."""
    path = folder / "locked.sqlite3"
    first, second = sqlite3.connect(path, timeout=0), sqlite3.connect(path, timeout=0)
    try:
        first.execute("BEGIN IMMEDIATE")
        second.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        return failed_with(error)
    finally:
        first.close()
        second.close()
    raise AssertionError("both connections write")


def test_a_move_is_tried_until_the_database_takes_it() -> None:
    answers: list[Exception | bool] = [OperationalError("locked"), InterfaceError("gone"), True]
    assert database.repeat_until_done(answering(answers), patience_secs=10)
    assert answers == []


def test_a_database_that_stays_away_is_given_up() -> None:
    with pytest.raises(OperationalError):
        database.repeat_until_done(answering([OperationalError("gone")] * 1000), patience_secs=0.05)


@pytest.mark.parametrize("state", sorted(database.ROLLED_BACK_STATES))
def test_a_transaction_that_lost_is_run_again(state: str) -> None:
    assert database.retry_transaction(answering([failed_with(Refused(state)), True]))


def test_a_deadlock_that_postgresql_found_late_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "QUICK_SECS", 0.0)
    monkeypatch.setattr(connection, "vendor", "postgresql")
    assert database.retry_transaction(answering([failed_with(Refused("40P01")), True]))


def test_a_lock_that_was_not_waited_for_is_tried_again(tmp_path: Path) -> None:
    assert database.retry_transaction(answering([locked(tmp_path), True]))


def test_a_transaction_that_is_always_rolled_back_raises() -> None:
    answers: list[Exception | bool] = [failed_with(Refused("40001"))] * (database.MAX_TRIES + 1)
    with pytest.raises(OperationalError):
        database.retry_transaction(answering(answers))
    assert len(answers) == 1


def test_a_transaction_that_may_have_been_stored_is_not_repeated() -> None:
    """After a connection that breaks at the commit the outcome is unknown."""
    answers: list[Exception | bool] = [failed_with(Refused("08006")), True]
    with pytest.raises(OperationalError):
        database.retry_transaction(answering(answers))
    assert answers == [True]


def test_a_lock_that_was_waited_for_is_not_waited_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "QUICK_SECS", 0.0)
    with pytest.raises(OperationalError):
        database.retry_transaction(answering([locked(tmp_path), True]))
