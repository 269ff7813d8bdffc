"""Clients that ask, read, drop, come back, cancel and ask twice, each by its own seeded dice."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import httpx

from tests.api.live import count
from tests.faults.history import Asked, History, Outcome
from tests.faults.reading import Client, Told, numbers

GREATEST_NUMBER = 60
READ_SECS = 150.0


class _Dropped(httpx.TransportError):
    """The client itself hangs up."""


class TrafficClient:
    """One client in its thread; ``history`` gets every operation with its outcome."""

    def __init__(self, number: int, url: str, history: History, *, seed: int) -> None:
        self._number = number
        self._url = url
        self._history = history
        self._dice = random.Random(f"{seed}-{number}")

    def run(self, until: threading.Event) -> None:
        while not until.is_set():
            self._history.add(self._ask())
            until.wait(self._dice.random() * 0.3)

    def _ask(self) -> Asked:
        n, key = self._dice.randint(3, GREATEST_NUMBER), str(UUID(int=self._dice.getrandbits(128)))
        body = count(n, delay_ms=self._dice.choice((0, 5, 15)), store=self._dice.random() < 0.7)
        body["priority"] = self._dice.choice(("interactive", "interactive", "batch"))
        way = self._dice.choice((self._stream, self._stream, self._stream_twice, self._drop, self._cancel, self._whole))
        try:
            return way(body, key, numbers(n))
        except AssertionError as error:  # the reader's own complaints: too late, a wrong id, a status that may not be
            return Asked(self._number, key, numbers(n), Outcome.UNKNOWN, problem=str(error))

    def _stream(self, body: dict[str, object], key: str, expected: str) -> Asked:
        told = Client(self._url, patience_secs=READ_SECS).read(body, key=key)
        return self._ok(key, expected, told)

    def _stream_twice(self, body: dict[str, object], key: str, expected: str) -> Asked:
        """Two tabs with one key."""
        client = Client(self._url, patience_secs=READ_SECS)
        with ThreadPoolExecutor(2) as pool:
            told = [each.result() for each in [pool.submit(client.read, body, key=key) for _ in range(2)]]
        if told[0].generation_id != told[1].generation_id:
            return self._ok(key, expected, *told, problem=f"key {key} ran twice")
        return self._ok(key, expected, *told)

    def _drop(self, body: dict[str, object], key: str, expected: str) -> Asked:
        """Hang up now and then, come back each time."""

        def hang_up(told: Told) -> None:
            if self._dice.random() < 0.03:
                raise _Dropped("hung up")

        told = Client(self._url, patience_secs=READ_SECS).read(body, key=key, on_line=hang_up)
        return self._ok(key, expected, told, was_cancelled=True)  # a grace may have passed while nothing answered

    def _cancel(self, body: dict[str, object], key: str, expected: str) -> Asked:
        at = self._dice.randint(1, len(expected))
        sent: list[str] = []

        def cancel(told: Told) -> None:
            if told.n_tokens >= at and not sent:
                sent.append(told.generation_id)
                httpx.post(f"{self._url}/api/generations/{told.generation_id}/cancel", timeout=30)

        told = Client(self._url, patience_secs=READ_SECS).read(body, key=key, on_line=cancel)
        return self._ok(key, expected, told, was_cancelled=bool(sent))

    def _whole(self, body: dict[str, object], key: str, expected: str) -> Asked:
        """POST /chat once; what nobody knows of it is asked for again under its key."""
        try:
            answer = httpx.post(f"{self._url}/chat", json=body, headers={"Idempotency-Key": key}, timeout=READ_SECS)
            told = answer.json() if answer.status_code == httpx.codes.OK else {}
        except (httpx.TransportError, ValueError):
            told = {}
        if "response" not in told:
            return self._stream(body, key, expected)
        problem = "" if told["response"] == expected else f"/chat said {told['response'][-40:]!r}"
        return Asked(self._number, key, expected, Outcome.OK, told["generation_id"], problem=problem)

    def _ok(self, key: str, expected: str, *told: Told, was_cancelled: bool = False, problem: str = "") -> Asked:
        return Asked(self._number, key, expected, Outcome.OK, told[0].generation_id, told, was_cancelled, problem)
