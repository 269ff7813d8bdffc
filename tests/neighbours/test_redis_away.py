"""Redis is away while the card is lent, with real processes: the holder leaves first, then the resident goes on."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection

from tests.neighbours.card_ledger import OURS, LedgerThread
from tests.neighbours.neighbourhood import Combination, Neighbourhood
from tests.neighbours.programs import LEASE_SECS, LEAVE_SECS, LONELY_SECS

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="a neighbourhood has a file of its own"),
]
SLACK_SECS = 10.0


def elapsed(condition: Callable[[], bool], within_secs: float) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_secs, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("coordinator", ["ours", "v1", "v2"])
def test_the_holder_leaves_before_the_resident_goes_on(coordinator: str, database: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    around = Neighbourhood(Combination(coordinator, "ours"), folder, database)
    around.begin()
    try:
        with LedgerThread(around.ledger):
            elapsed(lambda: around.ledger.look() == {"resident 1"}, SLACK_SECS)
            around.chat(is_active=True)
            elapsed(lambda: around.ledger.look() == {OURS}, SLACK_SECS)
            around.broker.kill()
            limit_secs = LEASE_SECS if coordinator == "ours" else LEAVE_SECS
            elapsed(lambda: not around.ledger.look(), limit_secs + SLACK_SECS)
            away_secs = elapsed(lambda: around.ledger.look() == {"resident 1"}, LONELY_SECS + SLACK_SECS)
            assert away_secs > 0.3  # they did not meet at the door
            time.sleep(1.0)
            assert around.ledger.look() == {"resident 1"}  # nothing is requested meanwhile
            around.broker.start()
            elapsed(lambda: around.ledger.look() == {OURS}, SLACK_SECS)
            around.chat(is_active=False)
            elapsed(lambda: around.ledger.look() == {"resident 1"}, SLACK_SECS)
        assert around.ledger.crowds == []
    finally:
        around.end()
