"""Fixtures of the fault rows: a running service to break, and a record of injected faults and measurements.

``make test`` runs each quick row once. ``make faults`` sets FAULT_ROUNDS (rows that kill or freeze are run so often)
and FAULT_RESULTS (where each result is written at once; a row that passed with this code is not run again).
"""

import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.breaking import FaultStack
from tests.faults.broker import Broker
from tests.faults.results import Result, Results, code_of

Seen = dict[str, Any]
MakeStack = Callable[..., FaultStack]

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
RESULTS = Results(Path(os.environ["FAULT_RESULTS"]) if "FAULT_RESULTS" in os.environ else None)
IS_WHOLE_RUN = "FAULT_RESULTS" in os.environ
# A part that dies often is started again after ever longer pauses, which these rows do not measure.
MOST_DEATHS = 2
SHORT_CLAIMS = {"CLAIM_TTL_SECS": "2", "HEARTBEAT_SECS": "0.4"}
ENVIRONMENT = {
    **SHORT_CLAIMS,
    "GEMMA_PARALLEL": "8",
    "GEMMA_CONTEXT_SIZE": "16384",
    "STREAM_GRACE_SECS": "1",
    "JSON_PATIENCE_SECS": "60",
    "QUEUE_MAX_PER_CALLER": "250",
}


@dataclass(frozen=True)
class Fault:
    """The arguments of a row's ``fault`` marker."""

    row: str
    injected: str
    expected: str
    repeated: bool = False
    quick: bool = True

    @classmethod
    def of(cls, item: pytest.Item | pytest.Function) -> "Fault":
        marker = item.get_closest_marker("fault")
        assert marker is not None, f"{item.name} says nothing of its fault"
        return cls(*marker.args, **marker.kwargs)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("fault") is None:
        return
    n_rounds = ROUNDS if Fault.of(metafunc.definition).repeated else 1
    metafunc.parametrize("round_number", range(n_rounds), ids=lambda number: f"round{number}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


REPORT: pytest.StashKey[pytest.TestReport] = pytest.StashKey()


@pytest.fixture
def seen(request: pytest.FixtureRequest, round_number: int) -> Iterator[Seen]:
    """Return a dictionary for the row's measurements; they are recorded with the result, passed or failed."""
    # Without its round, but with whatever else it was given: each is to be run so often.
    fault, test = Fault.of(request.node), re.sub(r"round\d+-?", "", request.node.nodeid).replace("[]", "")
    if not (fault.quick or IS_WHOLE_RUN):
        pytest.skip("long: `make faults` runs it")
    if RESULTS.has_passed(test, round_number):
        pytest.skip("has passed with this code")
    found: Seen = {}
    began = time.monotonic()
    yield found
    report = request.node.stash.get(REPORT, None)
    RESULTS.add(
        Result(
            row=fault.row,
            test=test,
            round=round_number,
            passed=report is not None and report.passed,
            secs=round(time.monotonic() - began, 1),
            injected=fault.injected,
            expected=fault.expected,
            commit=RESULTS.commit,
            code=code_of(test),
            seen=found,
        )
    )


@pytest.fixture(scope="package")
def _shared() -> Iterator[list[FaultStack]]:
    """At most one stack; a list, so that a row that broke it for good leaves none."""
    stacks: list[FaultStack] = []
    yield stacks
    for stack in stacks:
        stack.clean_up()


@pytest.fixture
def stack(_shared: list[FaultStack], seen: Seen, request: pytest.FixtureRequest) -> Iterator[FaultStack]:
    """A running service as `serve` starts it, with scripted answers, and nothing under way."""
    del seen  # requested first, so that a skipped row starts nothing
    if not _shared:
        _shared.append(FaultStack(backend="fake", environment=ENVIRONMENT))
        _shared[0].start()
    stack = _shared[0]
    if stack.n_deaths >= MOST_DEATHS:
        stack.stop()
        stack.n_deaths = 0
        stack.start()
    stack.wait_until_healthy()
    yield stack
    report = request.node.stash.get(REPORT, None)
    if report is None or report.failed:
        _shared.remove(stack)
        stack.clean_up()


@pytest.fixture(scope="package")
def _shared_with_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[FaultStack, Broker]]]:
    stacks: list[tuple[FaultStack, Broker]] = []
    yield stacks
    for stack, broker in stacks:
        stack.clean_up()
        broker.clean_up()


@pytest.fixture
def with_broker(
    _shared_with_broker: list[tuple[FaultStack, Broker]], seen: Seen, request: pytest.FixtureRequest
) -> Iterator[tuple[FaultStack, Broker]]:
    """A service with its own broker, which the test can keep stopped."""
    del seen
    if not _shared_with_broker:
        broker = Broker()
        broker.start()
        stack = FaultStack(backend="fake", environment={**ENVIRONMENT, "REDIS_URL": broker.url})
        stack.start()
        _shared_with_broker.append((stack, broker))
    stack, broker = _shared_with_broker[0]
    stack.wait_until_healthy()
    yield stack, broker
    report = request.node.stash.get(REPORT, None)
    if report is None or report.failed:
        _shared_with_broker.clear()
        stack.clean_up()
        broker.clean_up()


@pytest.fixture
def make_stack(seen: Seen) -> Iterator[MakeStack]:
    """Stacks for one row alone, not started; cleaned up after it."""
    del seen
    made: list[FaultStack] = []

    def make(*, backend: str = "fake", **environment: str) -> FaultStack:
        made.append(FaultStack(backend=backend, environment={**ENVIRONMENT, **environment}))
        return made[-1]

    yield make
    for stack in made:
        stack.clean_up()
