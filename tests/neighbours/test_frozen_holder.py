"""Our worker and its runner are frozen while the card is lent, with real processes: the model leaves before the lease
ends, and only then does the resident go on."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from django.db import connection

from tests.live_stack import wait_until
from tests.neighbours.card_ledger import OURS, LedgerThread
from tests.neighbours.neighbourhood import Combination, Neighbourhood
from tests.neighbours.programs import LEASE_SECS

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="a neighbourhood has a file of its own"),
]
PATIENCE_SECS = 15.0


def freeze_worker(around: Neighbourhood) -> None:
    around.programs["worker"].signal(signal.SIGSTOP)


def freeze_runner(around: Neighbourhood) -> None:
    runner = around.runner()
    assert runner is not None
    runner.suspend()


@pytest.mark.parametrize("tenant", ["ours", "theirs, old"])
@pytest.mark.parametrize("faults", [(freeze_worker, freeze_runner), (freeze_runner, freeze_worker)])
def test_the_resident_goes_on_when_our_model_has_left(
    faults: Sequence[Callable[[Neighbourhood], None]], tenant: str, database: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    around = Neighbourhood(Combination("ours", tenant), folder, database)
    around.begin()
    try:
        with LedgerThread(around.ledger):
            wait_until(lambda: around.ledger.look() == {"resident 1"}, timeout_secs=PATIENCE_SECS, what="it is there")
            around.chat(is_active=True)
            wait_until(lambda: around.ledger.look() == {OURS}, timeout_secs=PATIENCE_SECS, what="the chat has the card")
            time.sleep(LEASE_SECS)  # the lease was renewed
            for fault in faults:
                fault(around)
            limit_secs = LEASE_SECS + PATIENCE_SECS
            wait_until(lambda: around.ledger.look() == {"resident 1"}, timeout_secs=limit_secs, what="it goes on")
        assert around.ledger.crowds == []
    finally:
        around.end()
