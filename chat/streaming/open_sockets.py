"""Number of WebSockets that each caller has open in this process. Knows no protocol."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from chat.access.callers import Caller
from chat.errors import TooManyRequests

MAX_SOCKETS = 256  # each costs memory and a file descriptor, whether anything is sent or not


class OpenSockets:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: Caller) -> Iterator[None]:
        """Raises TooManyRequests."""
        if self._counts[caller.key] >= MAX_SOCKETS:
            raise TooManyRequests(f"{MAX_SOCKETS} sockets of this caller are open", code="socket_limit")
        self._counts[caller.key] += 1
        try:
            yield
        finally:
            self._counts[caller.key] -= 1
            if not self._counts[caller.key]:
                del self._counts[caller.key]


sockets = OpenSockets()
