"""A service under random faults has a possible history, and the checker finds impossible ones."""

import os
import threading

import pytest

from tests.faults.breaking import Row
from tests.faults.card import SIMULATED, watched
from tests.faults.conftest import ENVIRONMENT, SHORT_CLAIMS, Seen
from tests.faults.history import History, Operation, Outcome, Stored, check, watch
from tests.faults.nemesis import Nemesis, Surroundings
from tests.faults.reading import Reading, numbers
from tests.faults.traffic import TrafficClient
from tests.live_stack import wait_until

NEMESIS_SECS = float(os.environ.get("FAULT_NEMESIS_SECS", "10"))
SEEDS = [int(seed) for seed in os.environ.get("FAULT_SEEDS", "1").split(",")]
SETTLE_SECS = 60.0
N_CLIENTS = 5

GOOD_REST = ("complete", numbers(3), 1, 1, "", "")
GOOD = Row("a1", *GOOD_REST)


def reading(*texts: str, first: int = 1, done: bool = True) -> Reading:
    """A reading of these tokens and an end."""
    reader = Reading(generation_id="a1")
    for index, text in enumerate(texts, start=first):
        reader.take({"id": index, "token": text, "done": False})
    if done:
        reader.take({"id": first + len(texts) - 1, "token": "", "done": True})
    return reader


def skipping() -> Reading:
    reader = reading("1", " ", done=False)
    reader.take({"id": 4, "token": " ", "done": False})
    return reader


def ending_twice() -> Reading:
    reader = reading(*numbers(3))
    reader.take(reader.last)
    return reader


def operation(**changes: object) -> Operation:
    usual: dict[str, object] = {
        "client": 1,
        "key": "k",
        "expected": numbers(3),
        "outcome": Outcome.OK,
        "generation_id": "a1",
        "readings": (reading(*numbers(3)),),
    }
    return Operation(**(usual | changes))  # type: ignore[arg-type]


def found(
    *askings: Operation, rows: tuple[Row, ...] = (GOOD,), ends: tuple[str, ...] = ("a1",), changes: tuple[str, ...] = ()
) -> list[str]:
    return check(History(list(askings)), Stored(list(rows), list(ends), list(changes)))


def test_a_good_history_has_nothing_to_be_found() -> None:
    assert found(operation()) == []
    assert found(operation(readings=(reading(*"1 2 ", done=False),))) == []
    interrupted = Row("a1", "interrupted", "1 2 ", 2, 4, "", "")
    assert found(operation(readings=(reading(*"1 2 "),), was_cancelled=True), rows=(interrupted,)) == []


@pytest.mark.parametrize(
    ("problem", "askings", "rest"),
    [
        ("accepted and lost", [operation()], {"rows": (), "ends": ()}),
        ("still running", [operation()], {"rows": (Row("a1", "running", "", 1, 1, "w", ""),), "ends": ()}),
        ("its end was not seen", [operation()], {"ends": ()}),
        ("ended 2 times", [operation()], {"ends": ("a1", "a1")}),
        ("changed after its end", [operation()], {"changes": ("a1",)}),
        (
            "2 generations",
            [operation(), operation(generation_id="b2", readings=())],
            {"rows": (GOOD, Row("b2", *GOOD_REST))},
        ),
        ("was told the ids", [operation(readings=(reading("1", " ", "2", first=1), skipping()))], {}),
        ("two ends", [operation(readings=(ending_twice(),))], {}),
        ("which is not stored", [operation(readings=(reading(*"1 2 X", done=False),))], {}),
        ("stored is", [operation(readings=(reading(*"1 2 "),))], {}),
        ("complete with", [operation(readings=())], {"rows": (Row("a1", "complete", "1 2 ", 1, 1, "", ""),)}),
        ("nobody asked for it", [operation(readings=())], {"rows": (Row("a1", "interrupted", "1 ", 1, 1, "", ""),)}),
        ("did not say", [operation(readings=())], {"rows": (Row("a1", "failed", "7 ", 1, 1, "", "x"),)}),
        ("client 1: too late", [operation(problem="too late", outcome=Outcome.UNKNOWN)], {}),
    ],
)
def test_what_may_not_happen_is_found(
    problem: str, askings: list[Operation], rest: dict[str, tuple[object, ...]]
) -> None:
    assert any(problem in each for each in found(*askings, **rest))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.fault(
    "50",
    f"{NEMESIS_SECS:g} s of random kills, freezes, cuts, stalls, a full broker, a locked database; {N_CLIENTS} clients",
    "the checker finds nothing",
    quick=False,
)
@pytest.mark.timeout(NEMESIS_SECS + 300)
def test_random_blows(seen: Seen, seed: int) -> None:
    around, history, until = Surroundings(**ENVIRONMENT, **SIMULATED), History(), threading.Event()
    try:
        stack = around.start()
        watch(stack.database)
        clients = [TrafficClient(number, stack.url, history, seed=seed) for number in range(N_CLIENTS)]
        threads = [threading.Thread(target=client.run, args=(until,)) for client in clients]
        for thread in threads:
            thread.start()
        nemesis = Nemesis(around, history, seed=seed, claim_ttl_secs=float(SHORT_CLAIMS["CLAIM_TTL_SECS"]))
        with watched(stack, every_secs=0.1) as card:
            nemesis.run(NEMESIS_SECS)
        until.set()
        for thread in threads:
            thread.join(SETTLE_SECS * 3)
            assert not thread.is_alive(), "what a client still waits for is in no history"
        wait_until(
            lambda: all(row.status in ("complete", "interrupted", "failed") for row in stack.rows()),
            timeout_secs=SETTLE_SECS,
            what="everything has ended",
        )
        seen |= history.counts() | {"seed": seed, "on_the_card": len(card.holders)}
        problems = check(history, Stored.read(stack.rows(), stack.database))
        problems += [f"on the card at once: {pids}" for pids in card.crowds]
    finally:
        until.set()
        around.clean_up()
    assert problems == [], f"{history.faults}"
    assert len(history.operations) > N_CLIENTS
    assert history.faults
