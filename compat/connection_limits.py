"""Open connections of the web server by address, and which of them gives way to a new one.

A connection waits while it has no complete request: half a header costs its sender nothing. Waiting ones give way,
those that are served do not. Knows no protocol.
"""

import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

log = logging.getLogger(__name__)

MAX_WAITING_PER_ADDRESS = 128
# Of one address, whatever they do: the rest is for others.
SHARE_PER_ADDRESS = 0.5
# A younger one may have sent its request already: in a burst connections are accepted before any of them is read.
GRACE_SECS = 2.0
LOG_SECS = 10.0


class Connection(Protocol):
    @property
    def is_waiting(self) -> bool:
        """True while no request of it is complete."""
        ...

    def abort(self) -> None: ...


@dataclass(eq=False)
class _Entry:
    connection: Connection
    group: str
    opened_at: float


class ConnectionLimits:
    """``max_total`` connections; the process has as many file descriptors, and some more for itself."""

    def __init__(self, max_total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_total = max_total
        self._clock = clock
        self._entries: dict[object, _Entry] = {}  # by transport, oldest first
        self._by_group: dict[str, dict[object, _Entry]] = {}
        self._logged_at = -LOG_SECS
        self._n_unlogged = 0

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, transport: object, connection: Connection, address: str) -> bool:
        """Count a new connection; False when it has to be closed. Older ones that wait may be aborted for it."""
        entry = _Entry(connection, group_of(address), self._clock())
        mine = self._by_group.setdefault(entry.group, {})
        if len(mine) >= MAX_WAITING_PER_ADDRESS:
            waiting = self._waiting(mine)
            if len(waiting) >= MAX_WAITING_PER_ADDRESS:
                self._abort(waiting[0])
        is_full = len(mine) >= self._max_total * SHARE_PER_ADDRESS or len(self._entries) >= self._max_total
        if is_full and not self._make_room(mine):
            self._log("refused", entry.group)
            return False
        self._entries[transport] = self._by_group.setdefault(entry.group, {})[transport] = entry
        return True

    def close(self, transport: object) -> None:
        entry = self._entries.pop(transport, None)
        if entry is None:
            return
        group = self._by_group[entry.group]
        del group[transport]
        if not group:
            del self._by_group[entry.group]

    def _make_room(self, mine: dict[object, _Entry]) -> bool:
        """Abort the oldest that waits, of the same address or else of the one with the most connections."""
        most = max(self._by_group.values(), key=len)
        for group in (mine, most):
            if waiting := self._waiting(group):
                self._abort(waiting[0])
                return True
        return False

    def _waiting(self, group: dict[object, _Entry]) -> list[tuple[object, _Entry]]:
        before = self._clock() - GRACE_SECS
        return [item for item in group.items() if item[1].opened_at < before and item[1].connection.is_waiting]

    def _abort(self, item: tuple[object, _Entry]) -> None:
        transport, entry = item
        self._log("aborted", entry.group)
        self.close(transport)
        entry.connection.abort()

    def _log(self, what: str, group: str) -> None:
        """Log one line in LOG_SECS: an attack would fill the disk."""
        self._n_unlogged += 1
        if self._clock() - self._logged_at >= LOG_SECS:
            log.warning("connections %s client=%s times=%d open=%d", what, group, self._n_unlogged, len(self))
            self._logged_at, self._n_unlogged = self._clock(), 0


def group_of(address: str) -> str:
    """Return the address, or the network of an IPv6 address: one host has 2^64 of those."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        if not ip.is_loopback:
            return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
