"""httpx transport whose calls have one deadline; its own timeouts bound single reads, which a trickle never exceeds.

Internals used: ``HTTPTransport._pool`` and ``ConnectionPool._network_backend``, whose streams are wrapped.
"""

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

_ends_at: ContextVar[float | None] = ContextVar("ends_at", default=None)


@contextmanager
def deadline(secs: float) -> Iterator[None]:
    """Bound all calls of a ``DeadlineTransport`` within the block to ``secs`` together."""
    token = _ends_at.set(time.monotonic() + secs)
    try:
        yield
    finally:
        _ends_at.reset(token)


class DeadlineTransport(httpx.HTTPTransport):
    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self._pool._network_backend = _Backend(self._pool._network_backend)


def _left(timeout: float | None) -> float | None:
    """Return the rest of the deadline, if that is shorter; never 0, which would not block at all."""
    ends_at = _ends_at.get()
    if ends_at is None:
        return timeout
    left = max(0.001, ends_at - time.monotonic())
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        _check()
        return self._stream.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  httpcore's type
        return self._stream.get_extra_info(info)


def _check() -> None:
    """Raise when the deadline has passed: data that is there already would be read without waiting."""
    ends_at = _ends_at.get()
    if ends_at is not None and time.monotonic() > ends_at:
        raise httpcore.ReadTimeout("the deadline of the call has passed")


class _Backend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(host, port, _left(timeout), local_address, socket_options))
