"""A client written with httpx-sse alone, which resumes with Last-Event-ID until it has the last line."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import httpx_sse

from tests.api.live import Line
from tests.live_stack import wait_until

PATIENCE_SECS = 90.0
PAUSE_SECS = 0.1


@dataclass
class Reading:
    """All lines of one answer that a reader received, over any number of connections."""

    generation_id: str = ""
    lines: list[Line] = field(default_factory=list)
    n_connections: int = 0
    longest_gap_secs: float = 0.0  # between two tokens
    refusals: list[tuple[int, str | None]] = field(default_factory=list)  # status and Retry-After
    _last_token_at: float | None = None

    @property
    def text(self) -> str:
        return "".join(line["token"] for line in self.lines)

    @property
    def last_id(self) -> int:
        return self.lines[-1]["id"] if self.lines else 0

    @property
    def n_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def token_ids(self) -> list[int]:
        """Return the ids of all tokens, including those whose text is held back until the next."""
        return [line["id"] for line in self.lines if not (line["done"] or "status" in line or "generation_id" in line)]

    @property
    def is_done(self) -> bool:
        return bool(self.lines) and bool(self.lines[-1]["done"])

    @property
    def last(self) -> Line:
        return self.lines[-1]

    @property
    def statuses(self) -> list[dict[str, Any]]:
        return [line["status"] for line in self.lines if "status" in line]

    def take(self, line: Line) -> None:
        self.lines.append(line)
        self.generation_id = line.get("generation_id") or self.generation_id
        if line["token"]:
            now = time.monotonic()
            if self._last_token_at is not None:
                self.longest_gap_secs = max(self.longest_gap_secs, now - self._last_token_at)
            self._last_token_at = now

    def assert_whole(self, text: str) -> None:
        """Every token once and in order, nothing missing, and one end."""
        assert self.token_ids == list(range(1, self.n_tokens + 1)), "a gap or a repetition"
        assert self.text == text
        assert [line["done"] for line in self.lines] == [False] * (len(self.lines) - 1) + [True]


OnLine = Callable[[Reading], object]


class Client:
    """Asks once (with a key, so that asking twice is once) and reads to the end, whatever happens in between."""

    def __init__(self, url: str, *, patience_secs: float = PATIENCE_SECS) -> None:
        self._url = url
        self._patience_secs = patience_secs

    def read(self, body: dict[str, object], *, key: str | None = None, on_line: OnLine | None = None) -> Reading:
        """POST /chat/stream, then GET after every break. Raises AssertionError when it takes too long."""
        reading, key = Reading(), key or uuid4().hex
        deadline = time.monotonic() + self._patience_secs
        while not reading.is_done:
            counts = f"{reading.n_connections} connections, {reading.n_tokens} tokens"
            assert time.monotonic() < deadline, f"{counts}, no end"
            with suppress(httpx.TransportError):  # the disconnects that this client has to survive
                self._read_on(reading, body, key, on_line)
            if not reading.is_done:
                time.sleep(PAUSE_SECS)
        return reading

    def _read_on(self, reading: Reading, body: dict[str, object], key: str, on_line: OnLine | None) -> None:
        reading.n_connections += 1
        with httpx.Client(timeout=30) as client:
            if reading.generation_id:
                address = f"{self._url}/chat/stream/{reading.generation_id}"
                source = httpx_sse.connect_sse(client, "GET", address, headers={"Last-Event-ID": str(reading.last_id)})
            else:
                address = f"{self._url}/chat/stream"
                source = httpx_sse.connect_sse(client, "POST", address, json=body, headers={"Idempotency-Key": key})
            with source as events:
                if events.response.status_code != httpx.codes.OK:
                    self._refused(reading, events.response)
                    return
                for event in events.iter_sse():
                    line = json.loads(event.data)
                    assert event.id == str(line["id"])
                    reading.take(line)
                    if on_line:
                        on_line(reading)

    def _refused(self, reading: Reading, response: httpx.Response) -> None:
        reading.refusals.append((response.status_code, response.headers.get("Retry-After")))
        assert response.status_code == httpx.codes.SERVICE_UNAVAILABLE, response.read()

    def begin(self, bodies: Sequence[dict[str, object]], *, n_tokens: int = 0) -> "list[Future[Reading]]":
        """Read them concurrently; return when each has ``n_tokens`` tokens. The futures yield the whole answers."""
        reading: dict[int, Reading] = {}
        pool = ThreadPoolExecutor(len(bodies))
        futures = [
            pool.submit(self.read, body, on_line=partial(reading.__setitem__, number))
            for number, body in enumerate(bodies)
        ]
        pool.shutdown(wait=False)
        wait_until(
            lambda: sum(each.n_tokens >= n_tokens for each in list(reading.values())) == len(bodies),
            timeout_secs=self._patience_secs,
            what=f"{len(bodies)} answers have {n_tokens} tokens",
        )
        return futures


def numbers(n: int) -> str:
    """Return the answer to ``count(n)``."""
    return "".join(f"{number} " for number in range(1, n + 1))
