"""Which connections give way when an address, or everybody together, has too many."""

import logging
from dataclasses import dataclass, field

import pytest

from compat import connection_limits
from compat.connection_limits import GRACE_SECS, ConnectionLimits, group_of


@dataclass(eq=False)
class Opened:
    is_waiting: bool = True
    aborted: list[bool] = field(default_factory=list)

    def abort(self) -> None:
        self.aborted.append(True)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Server:
    max_total: int = 10_000
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.limits = ConnectionLimits(self.max_total, self.clock)
        self.connections: list[Opened] = []

    def open(self, address: str, *, is_waiting: bool = True) -> bool:
        connection = Opened(is_waiting)
        self.connections.append(connection)
        return self.limits.open(connection, connection, address)

    @property
    def n_aborted(self) -> int:
        return sum(len(connection.aborted) for connection in self.connections)


def test_half_open_connections_of_an_address_are_bounded() -> None:
    server = Server()
    for _ in range(1000):
        assert server.open("10.0.0.1")
        server.clock.now += GRACE_SECS / 10
    assert len(server.limits) <= 128 + 11, "and the youngest ten"
    assert server.n_aborted == 1000 - len(server.limits)
    assert [bool(each.aborted) for each in server.connections] == [True] * server.n_aborted + [False] * len(
        server.limits
    ), "the oldest first"
    assert server.open("10.0.0.2"), "another address is not concerned"


def test_a_burst_is_not_taken_for_an_attack() -> None:
    """All are accepted before the first is read: none of them is slow."""
    server = Server()
    assert all(server.open("10.0.0.1") for _ in range(1000))
    assert server.n_aborted == 0


def test_those_that_are_served_do_not_give_way() -> None:
    server = Server()
    assert all(server.open("10.0.0.1", is_waiting=False) for _ in range(1000))
    server.clock.now += 100
    assert server.open("10.0.0.1")
    assert server.n_aborted == 0


def test_one_address_does_not_take_all_places() -> None:
    server = Server(100)
    assert [server.open("10.0.0.1", is_waiting=False) for _ in range(60)] == [True] * 50 + [False] * 10
    assert all(server.open("10.0.0.2", is_waiting=False) for _ in range(50))
    assert not server.open("10.0.0.3", is_waiting=False), "all places are taken, and all are used"
    server.limits.close(server.connections[0])
    assert server.open("10.0.0.3")


def test_where_all_places_are_taken_the_one_with_the_most_gives_way() -> None:
    server = Server(100)
    for _ in range(50):
        server.open("10.0.0.1")
    for number in range(50):
        server.open(f"10.0.1.{number}", is_waiting=False)
    server.clock.now += GRACE_SECS + 1
    assert server.open("10.0.0.9")
    assert server.connections[0].aborted


def test_a_closed_connection_is_forgotten_once() -> None:
    server = Server(2)
    server.open("10.0.0.1", is_waiting=False)
    for _ in range(2):
        server.limits.close(server.connections[0])
    assert len(server.limits) == 0
    assert server.limits._by_group == {}


def test_an_attack_is_one_line_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(4)
    with caplog.at_level(logging.WARNING, connection_limits.__name__):
        for _ in range(500):
            server.open("10.0.0.1", is_waiting=False)
            server.clock.now += 0.1
    assert 3 <= len(caplog.records) <= 6
    assert "client=10.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a socket", "a socket"),
    ],
)
def test_a_host_is_one_address_whatever_it_calls_itself(address: str, group: str) -> None:
    assert group_of(address) == group
