"""The connections of the pool's threads: one stays while it works, and none stays that would commit nothing."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from inference.runtime.threads import call_with_own_connection

pytestmark = pytest.mark.django_db(transaction=True)


def create_user(name: str) -> None:
    with transaction.atomic():
        User.objects.create(username=name)


def after_commit(work: Callable[[], None]) -> None:
    with transaction.atomic():
        transaction.on_commit(work)


def test_a_transaction_cut_short_before_autocommit_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = BaseDatabaseWrapper.set_autocommit

    def set_autocommit(self: BaseDatabaseWrapper, autocommit: bool, **options: bool) -> None:
        if autocommit:
            raise InterruptedError
        begin(self, autocommit, **options)

    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "set_autocommit", set_autocommit)
        with pytest.raises(InterruptedError):
            call_with_own_connection(create_user, "a")
    calls: list[str] = []
    call_with_own_connection(after_commit, lambda: calls.append("committed"))
    assert calls == ["committed"]
    assert connection.get_autocommit()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL's connections end by their age")
def test_a_connection_that_works_stays() -> None:
    call_with_own_connection(create_user, "a")
    first = connection.connection
    call_with_own_connection(create_user, "b")
    assert first is not None
    assert connection.connection is first
