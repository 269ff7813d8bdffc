"""The listening socket: taken ports and unknown addresses are named, both address families work."""

import socket

import pytest

from gemma_project.supervisor.errors import AddressInUse
from gemma_project.supervisor.listener import open_listener, reachable_url
from tests.live_stack import free_port


def test_a_listener_can_be_reached() -> None:
    port = free_port()
    with open_listener("127.0.0.1", port), socket.create_connection(("127.0.0.1", port), timeout=2):
        pass


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"cannot listen on 127.0.0.1:{port} .*in use.*GEMMA_PORT"):
            open_listener("127.0.0.1", port)


def test_two_listeners_exclude_each_other() -> None:
    port = free_port()
    with open_listener("127.0.0.1", port), pytest.raises(AddressInUse):
        open_listener("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "256.1.1.1"])
def test_an_unknown_host_is_named(host: str) -> None:
    with pytest.raises(AddressInUse, match=f"GEMMA_HOST='{host}'"):
        open_listener(host, free_port())


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(AddressInUse, match=r"cannot listen on 192\.0\.2\.1.*GEMMA_HOST=.192\.0\.2\.1."):
        open_listener("192.0.2.1", free_port())


def test_the_name_of_this_machine_works() -> None:
    with open_listener("localhost", free_port()):
        pass


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("0.0.0.0", "http://127.0.0.1:8001"),
        ("::", "http://[::1]:8001"),
        ("::1", "http://[::1]:8001"),
        ("gemma.example", "http://gemma.example:8001"),
    ],
)
def test_the_printed_address_can_be_called(host: str, url: str) -> None:
    assert reachable_url(host, 8001) == url
