"""Clients that ask, read, drop, come back, cancel and ask twice, each by its own seeded dice."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx

from tests.api.live import count
from tests.faults.history import History, Operation, Outcome
from tests.faults.reading import Client, Reading, numbers

GREATEST_NUMBER = 60
READ_SECS = 150.0


class _Dropped(httpx.TransportError):
    """The client itself hangs up."""


class TrafficClient:
    """A client in a thread of its own; every operation is added to ``history`` with its outcome."""

    def __init__(self, number: int, url: str, history: History, *, seed: int) -> None:
        self._number = number
        self._url = url
        self._history = history
        self._dice = random.Random(f"{seed}-{number}")

    def run(self, until: threading.Event) -> None:
        while not until.is_set():
            self._history.add(self._ask())
            until.wait(self._dice.random() * 0.3)

    def _ask(self) -> Operation:
        n, key = self._dice.randint(3, GREATEST_NUMBER), str(UUID(int=self._dice.getrandbits(128)))
        body = count(n, delay_ms=self._dice.choice((0, 5, 15)), store=self._dice.random() < 0.7)
        body["priority"] = self._dice.choice(("interactive", "interactive", "batch"))
        way = self._dice.choice((self._stream, self._stream, self._stream_twice, self._drop, self._cancel, self._whole))
        try:
            return way(body, key, numbers(n))
        except AssertionError as error:  # the reader's own complaints: too late, a wrong id, a status that may not be
            return Operation(self._number, key, numbers(n), Outcome.UNKNOWN, problem=str(error))

    def _stream(self, body: dict[str, object], key: str, expected: str) -> Operation:
        reading = Client(self._url, patience_secs=READ_SECS).read(body, key=key)
        return self._ok(key, expected, reading)

    def _stream_twice(self, body: dict[str, object], key: str, expected: str) -> Operation:
        """Two tabs with one key."""
        client = Client(self._url, patience_secs=READ_SECS)
        with ThreadPoolExecutor(2) as pool:
            readings = [each.result() for each in [pool.submit(client.read, body, key=key) for _ in range(2)]]
        if readings[0].generation_id != readings[1].generation_id:
            return self._ok(key, expected, *readings, problem=f"key {key} ran twice")
        return self._ok(key, expected, *readings)

    def _drop(self, body: dict[str, object], key: str, expected: str) -> Operation:
        """Hang up now and then, come back each time."""

        def hang_up(reading: Reading) -> None:
            if self._dice.random() < 0.03:
                raise _Dropped("hung up")

        reading = Client(self._url, patience_secs=READ_SECS).read(body, key=key, on_line=hang_up)
        return self._ok(key, expected, reading, was_cancelled=True)  # a grace may have passed while nothing answered

    def _cancel(self, body: dict[str, object], key: str, expected: str) -> Operation:
        at = self._dice.randint(1, len(expected))
        sent: list[str] = []

        def cancel(reading: Reading) -> None:
            if reading.n_tokens >= at and not sent:
                sent.append(reading.generation_id)
                httpx.post(f"{self._url}/api/generations/{reading.generation_id}/cancel", timeout=30)

        reading = Client(self._url, patience_secs=READ_SECS).read(body, key=key, on_line=cancel)
        return self._ok(key, expected, reading, was_cancelled=bool(sent))

    def _whole(self, body: dict[str, object], key: str, expected: str) -> Operation:
        """POST /chat once; without a response the request is repeated under its key."""
        try:
            answer = httpx.post(f"{self._url}/chat", json=body, headers={"Idempotency-Key": key}, timeout=READ_SECS)
            received = answer.json() if answer.status_code == httpx.codes.OK else {}
        except (httpx.TransportError, ValueError):
            received = {}
        if "response" not in received:
            return self._stream(body, key, expected)
        problem = "" if received["response"] == expected else f"/chat answered {received['response'][-40:]!r}"
        return Operation(self._number, key, expected, Outcome.OK, received["generation_id"], problem=problem)

    def _ok(
        self, key: str, expected: str, *readings: Reading, was_cancelled: bool = False, problem: str = ""
    ) -> Operation:
        generation_id = readings[0].generation_id
        return Operation(self._number, key, expected, Outcome.OK, generation_id, readings, was_cancelled, problem)
