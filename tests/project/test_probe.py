"""The Host header of the probe: the address that it calls, or a name that the service takes."""

import pytest
from pytest_django import Settings

from gemma_project.management.commands.probe import served_host


@pytest.mark.parametrize(
    ("hosts", "url", "host"),
    [
        (["localhost", "127.0.0.1", "[::1]"], "http://127.0.0.1:8001", "127.0.0.1:8001"),
        (["localhost", "127.0.0.1", "[::1]"], "http://[::1]:8001", "[::1]:8001"),
        (["chat.example.org"], "http://127.0.0.1:8001", "chat.example.org"),
        ([".example.org", "other.example"], "http://[::1]:8001", "example.org"),
        (["*"], "http://10.0.0.1:80", "10.0.0.1:80"),
        ([], "http://127.0.0.1:8001", "127.0.0.1:8001"),
    ],
)
def test_the_host_header(hosts: list[str], url: str, host: str, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = hosts
    assert served_host(url) == host
