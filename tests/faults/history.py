"""Operations of clients while faults are injected, and a checker that finds impossible histories.

The checker knows the scripted answers: a prompt to count to n has exactly one answer, so that a lost, repeated or
changed token shows in the text. Triggers in the database record its changes.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from tests.faults.breaking import Row
from tests.faults.reading import Reading

ENDED = ("complete", "interrupted", "failed")


class Outcome(StrEnum):
    """The end of an operation as its client knows it."""

    OK = "ok"
    REFUSED = "fail"  # it surely did not happen
    UNKNOWN = "info"  # it may have happened, or may still


@dataclass(frozen=True)
class Operation:
    """One message: its request, its outcome, and the lines that its readers received."""

    client: int
    key: str
    expected: str  # the whole answer
    outcome: Outcome
    generation_id: str = ""
    readings: tuple[Reading, ...] = ()
    was_cancelled: bool = False
    problem: str = ""


@dataclass
class History:
    """Filled by the clients' threads."""

    operations: list[Operation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)

    def struck(self, fault: str) -> None:
        with self._lock:
            self.faults.append(fault)

    def counts(self) -> dict[str, int]:
        """Numbers for a report."""
        return dict(Counter(str(operation.outcome) for operation in self.operations)) | {"faults": len(self.faults)}


# Written down in the transaction itself, so that nothing that was committed is missing and nothing else is in it.
WATCH = """
CREATE TABLE IF NOT EXISTS watched_ends (id, status, text, attempt, epoch, worker, error_code);
CREATE TABLE IF NOT EXISTS watched_changes (id TEXT, was TEXT, now TEXT);
CREATE TRIGGER IF NOT EXISTS watch_ends AFTER UPDATE ON inference_generation
WHEN NEW.status IN ('complete', 'interrupted', 'failed') AND OLD.status NOT IN ('complete', 'interrupted', 'failed')
BEGIN INSERT INTO watched_ends
VALUES (NEW.id, NEW.status, NEW.text, NEW.attempt, NEW.claim_epoch, NEW.worker, NEW.error_code); END;
CREATE TRIGGER IF NOT EXISTS watch_changes AFTER UPDATE ON inference_generation
WHEN OLD.status IN ('complete', 'interrupted', 'failed')
 AND (NEW.status != OLD.status OR NEW.text != OLD.text OR NEW.claim_epoch != OLD.claim_epoch)
BEGIN INSERT INTO watched_changes VALUES (NEW.id, OLD.status, NEW.status); END;
"""


def watch(database: str) -> None:
    """From now on the database remembers how often each generation ended."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.executescript(WATCH)


@dataclass(frozen=True)
class Stored:
    """The database at the end, with the records of its triggers."""

    rows: list[Row]  # also rows that were deleted some time after their end, as those of unstored answers are
    ends: list[str]  # a generation for each of its ends
    changes: list[str]  # generations that changed after their end

    @classmethod
    def read(cls, rows: list[Row], database: str) -> "Stored":
        with closing(sqlite3.connect(database, timeout=20)) as connection:
            ended = connection.execute("SELECT * FROM watched_ends").fetchall()
            changes = [row[0] for row in connection.execute("SELECT id FROM watched_changes")]
        known = {UUID(row.id).hex for row in rows}
        forgotten = [Row(str(UUID(hex_id)), *rest) for hex_id, *rest in ended if hex_id not in known]
        return cls([*rows, *forgotten], [row[0] for row in ended], changes)


def check(history: History, stored: Stored) -> list[str]:
    """Everything that may not have happened; empty when all is well."""
    rows = {row.id.replace("-", ""): row for row in stored.rows}
    found = [
        *_unfinished(stored.rows),
        *_ended_twice(stored),
        *(f"{each}: changed after its end" for each in stored.changes),
    ]
    for operation in history.operations:
        if operation.problem:
            found.append(f"client {operation.client}: {operation.problem}")
        row = rows.get(operation.generation_id.replace("-", ""))
        if operation.outcome is Outcome.OK and row is None:
            found.append(f"{operation.generation_id}: accepted and lost")
        elif row is not None:
            found += [f"{row.id}: {problem}" for problem in _of_one(operation, row)]
            # Else triggers that never fired would look like a database in which all is well.
            if row.status in ENDED and row.id.replace("-", "") not in stored.ends:
                found.append(f"{row.id}: its end was not seen")
    return found + _doubled(history.operations)


def _unfinished(rows: Iterable[Row]) -> list[str]:
    """(vi)"""
    return [f"{row.id}: still {row.status}, attempt {row.attempt}" for row in rows if row.status not in ENDED]


def _ended_twice(stored: Stored) -> list[str]:
    """(i) and (iv): one end, by one epoch."""
    return [f"{generation}: ended {n} times" for generation, n in Counter(stored.ends).items() if n != 1]


def _doubled(operations: Iterable[Operation]) -> list[str]:
    """Return the keys with more than one generation."""
    by_key: dict[str, set[str]] = {}
    for each in operations:
        if each.generation_id:
            by_key.setdefault(each.key, set()).add(each.generation_id)
    return [f"key {key}: {len(ids)} generations" for key, ids in by_key.items() if len(ids) > 1]


def _of_one(operation: Operation, row: Row) -> list[str]:
    found = []
    if row.status == "failed":
        found.append(f"failed: {row.error_code}")
    if row.status == "complete" and row.text != operation.expected:
        found.append(f"complete with {row.text!r}")
    if row.status == "interrupted" and not (operation.was_cancelled or row.error_code == "timeout"):
        found.append("interrupted, and nobody asked for it")
    if not operation.expected.startswith(row.text):
        found.append(f"holds what the model did not say: {row.text[-40:]!r}")
    for reading in operation.readings:
        found += _of_reader(reading, row)
    return found


def _of_reader(reading: Reading, row: Row) -> list[str]:
    """(ii) and (iii): ids are contiguous from the first, and the received text is the stored one."""
    found = []
    ids = reading.token_ids
    first = ids[0] if ids else 1
    if ids != list(range(first, first + len(ids))):
        found.append(f"a reader was told the ids {ids[:5]}...{ids[-5:]} over {reading.n_connections} connections")
    if sum(bool(line["done"]) for line in reading.lines) > 1:
        found.append("a reader was told two ends")
    if reading.is_done and reading.text != row.text:
        found.append(f"a reader was told {reading.text[-40:]!r}, stored is {row.text[-40:]!r}")
    if not row.text.startswith(reading.text):
        found.append(f"a reader was told {reading.text[-40:]!r} which is not stored")
    return found
