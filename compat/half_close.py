"""The client of a request that has shut its sending side. Imports no Twisted: commands have no such client."""

import time
from contextvars import ContextVar

# The channel of the request that a task answers; none for WebSockets and outside of the server.
current_channel: ContextVar[object | None] = ContextVar("current_channel", default=None)


def secs_since_half_close() -> float:
    """Return how long ago the client of the current request shut its sending side; 0 when it did not."""
    half_closed_at: float | None = getattr(current_channel.get(), "half_closed_at", None)
    return 0.0 if half_closed_at is None else time.monotonic() - half_closed_at
