"""Hand-overs are kept, and read in the admin."""

import logging
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import Client

from inference.gpu.records import store
from inference.gpu.records.hand_over import HandOverRecord
from inference.gpu.records.store import record_hand_over
from inference.models.gpu import HandOver

pytestmark = [pytest.mark.databases, pytest.mark.django_db]

RECORD = HandOverRecord(
    device_from="cpu",
    device_to="gpu",
    started_at=datetime(2026, 3, 2, 10, 0, 11, tzinfo=UTC),
    waited_ms=1100.0,
    loaded_ms=640.0,
    moved_ms=23.0,
    moved_bytes=33 << 20,
    n_sequences=2,
    n_snapshots=3,
    held_secs=75.0,
    n_served=4,
    taken_secs=76.5,
    yield_ms=310.0,
    ended_because="ml-service wants the GPU",
    lease_epoch=12,
    coordinator="builtin",
    is_simulated=True,
)
IN_VAIN = HandOverRecord(
    device_from="cpu", device_to="gpu", waited_ms=900.0, ended_because="the coordinator does not answer"
)


def test_all_of_it_is_kept() -> None:
    record_hand_over(RECORD)
    row = HandOver.objects.get()
    for name in RECORD.__dataclass_fields__:
        assert getattr(row, name) == getattr(RECORD, name), name


def test_a_reason_of_any_length_and_the_newest_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_ROWS", 2)
    for number in range(4):
        record_hand_over(HandOverRecord(device_from="cpu", device_to="gpu", waited_ms=number, ended_because="x" * 999))
    assert sorted(HandOver.objects.values_list("waited_ms", flat=True)) == [2.0, 3.0]


def test_a_database_that_is_away_costs_the_record_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(**values: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(HandOver.objects, "create", away)
    with caplog.at_level(logging.WARNING):
        record_hand_over(RECORD)
    assert "ml-service wants the GPU" in caplog.text


class TestAdmin:
    URL = "/admin/inference/handover/"

    @pytest.fixture
    def client(self) -> Client:
        client = Client()
        client.force_login(User.objects.create_superuser("op", password="x"))
        record_hand_over(RECORD)
        record_hand_over(IN_VAIN)
        return client

    def test_a_line_says_what_a_person_asks_first(self, client: Client) -> None:
        page = client.get(self.URL).content.decode().replace("\N{NO-BREAK SPACE}", " ")
        for words in (
            "2026-03-02 10:00:11",
            "cpu → gpu (simulated)",
            "1.1 s + 640 ms",
            "1 min 15 s",
            "2 + 3 saved, 33.0 MB",
            "310 ms",
            "ml-service wants the GPU",
            "not reached",
        ):
            assert words in page, words

    def test_the_page_behind_it_has_the_rest_and_changes_nothing(self, client: Client) -> None:
        row = HandOver.objects.get(lease_epoch=12)
        page = client.get(f"{self.URL}{row.pk}/change/").content.decode().replace("\N{NO-BREAK SPACE}", " ")
        for words in ("number 12, coordinator: builtin", "1 min 16 s", "23 ms", "Back to the CPU"):
            assert words in page, words
        assert client.post(f"{self.URL}{row.pk}/change/", {"n_served": 99}).status_code == 403
        assert client.get(f"{self.URL}add/").status_code == 403
        assert client.post(f"{self.URL}{row.pk}/delete/").status_code == 403

    def test_people_without_the_right_do_not_see_them(self) -> None:
        client = Client()
        client.force_login(User.objects.create_user("clerk", password="x", is_staff=True))
        assert client.get(self.URL).status_code == 403
