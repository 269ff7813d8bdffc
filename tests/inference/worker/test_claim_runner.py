"""A claim without its token log or database: nothing is computed blindly, no result is dropped at once."""

import threading
import time
from collections.abc import Callable

import pytest
import redis

from inference.dispatch import Dispatcher
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, GenerationOutcome
from inference.errors import StoreUnavailable
from inference.models import Generation
from inference.queue.deadlines import Deadlines
from inference.queue.results import CANCELLED, TIMED_OUT
from inference.token_stream import redis_log
from inference.token_stream.writer import LogWriter
from inference.worker import claim_runner
from inference.worker.claim_runner import ClaimRunner
from tests.inference.making import queued, tokens
from tests.inference.stub_runner import make_stub

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def runner(store: "redis.Redis[bytes]", stopping: threading.Event, monkeypatch: pytest.MonkeyPatch) -> ClaimRunner:
    monkeypatch.setattr(claim_runner, "RETRY_SECS", 0.01)
    return ClaimRunner(
        Dispatcher(make_stub, lambda _: None), LogWriter(store, lambda *_: None), store, stopping, Deadlines()
    )


def claimed_again() -> Generation:
    """A row that another worker claimed before."""
    generation = queued()
    first = Generation.objects.claim_next(worker="lost")
    assert first is not None
    Generation.objects.take_over(generation_id=generation.pk, epoch=first.claim_epoch, heartbeat=first.heartbeat)
    again = Generation.objects.claim_next(worker="w")
    assert again is not None
    return again


def redis_away(monkeypatch: pytest.MonkeyPatch, *, times: int, meanwhile: Callable[[], object]) -> None:
    """Fencing fails ``times`` times; after the first failure ``meanwhile`` happens."""
    fence = redis_log.fence
    failures: list[int] = []

    def failing(*arguments: object) -> object:
        if len(failures) >= times:
            return fence(*arguments)  # type: ignore[arg-type]
        failures.append(1)
        if len(failures) == 1:
            meanwhile()
        raise StoreUnavailable("away")

    monkeypatch.setattr(redis_log, "fence", failing)


def resume(runner: ClaimRunner, row: Generation, *, deadline: float | None = None) -> object:
    return runner._resume(row, ActiveGeneration.of(row, deadline=deadline))


def test_a_first_claim_needs_no_log(runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_away(monkeypatch, times=9999, meanwhile=lambda: None)
    queued()
    row = Generation.objects.claim_next(worker="w")
    assert row is not None
    assert resume(runner, row) == []


def test_a_later_claim_waits_for_the_emitted_tokens(
    runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch, store: "redis.Redis[bytes]"
) -> None:
    row = claimed_again()
    redis_log.append(store, [redis_log.Append(row.pk, 1, tokens("abc"))])
    redis_away(monkeypatch, times=3, meanwhile=lambda: None)
    assert resume(runner, row) == tokens("abc")


def test_a_wait_ends_with_the_worker(
    runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch, stopping: threading.Event
) -> None:
    row = claimed_again()
    redis_away(monkeypatch, times=9999, meanwhile=stopping.set)
    assert resume(runner, row) == GenerationOutcome(ClaimState.RELEASED)


@pytest.mark.parametrize("wish", [{"cancel_requested": True}, {}])
def test_a_row_that_has_to_end_waits_for_the_emitted_tokens(
    runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch, store: "redis.Redis[bytes]", wish: dict[str, bool]
) -> None:
    """Readers have received them: without them the row would end with less text than theirs."""
    row = claimed_again()
    redis_log.append(store, [redis_log.Append(row.pk, 1, tokens("abc"))])
    redis_away(monkeypatch, times=5, meanwhile=lambda: Generation.objects.update(**wish))
    assert resume(runner, row, deadline=None if wish else time.monotonic()) == tokens("abc")


def test_a_wait_ends_with_the_deadline(runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_runner, "LOG_PATIENCE_SECS", 0.05)
    row = claimed_again()
    redis_away(monkeypatch, times=9999, meanwhile=lambda: None)
    assert resume(runner, row, deadline=time.monotonic() + 0.05) == GenerationOutcome(ClaimState.ENDED, TIMED_OUT)


def test_a_wait_ends_with_a_cancel(runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_runner, "LOG_PATIENCE_SECS", 0.05)
    row = claimed_again()
    redis_away(monkeypatch, times=9999, meanwhile=lambda: Generation.objects.update(cancel_requested=True))
    assert resume(runner, row) == GenerationOutcome(ClaimState.ENDED, CANCELLED)


def test_a_wait_ends_with_the_claim(runner: ClaimRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    row = claimed_again()
    redis_away(monkeypatch, times=9999, meanwhile=lambda: Generation.objects.update(claim_epoch=99))
    assert resume(runner, row) == GenerationOutcome(ClaimState.LOST)


def test_a_row_that_cannot_be_computed_is_dropped(runner: ClaimRunner) -> None:
    """Its heartbeat stops, so that the reaper finds the row; no entry is left in this worker."""
    queued()
    row = Generation.objects.claim_next(worker="w")
    assert row is not None

    def broken(row: Generation, live: ActiveGeneration) -> GenerationOutcome:
        raise RuntimeError("a bug")

    runner._compute = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        runner.run(row)
    assert runner.active == {}
