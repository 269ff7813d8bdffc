"""CORS_ALLOWED_ORIGINS: origins as browsers send them, everything else refused by name."""

import pytest

from gemma_project.environment import Environment, SettingError


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", []),
        (" , ", []),
        ("https://chat.example", ["https://chat.example"]),
        ("HTTPS://Chat.Example , http://localhost:3000", ["https://chat.example", "http://localhost:3000"]),
        ("https://chat.example:443,http://a:80", ["https://chat.example", "http://a"]),
        ("https://a:80,http://a:443", ["https://a:80", "http://a:443"]),
        ("http://[::1]:3000,http://127.0.0.1", ["http://[::1]:3000", "http://127.0.0.1"]),
        ("https://xn--mller-kva.example", ["https://xn--mller-kva.example"]),
    ],
)
def test_what_is_taken(value: str, origins: list[str]) -> None:
    assert Environment({"CORS_ALLOWED_ORIGINS": value}).origins("CORS_ALLOWED_ORIGINS") == origins


@pytest.mark.parametrize(
    "value",
    [
        "*",
        "null",
        "chat.example",
        "https://",
        "https://*.example",
        "https://chat.example/",
        "https://chat.example/app",
        "https://chat.example?a",
        "https://chat.example#a",
        "https://ada:pw@chat.example",
        "ftp://chat.example",
        "file:///home",
        "https://chat.example:0",
        "https://chat.example:99999",
        "https://chat.example:x",
        "https://chat example",
        "https://müller.example",
        "https://[::1",
        "https://good.example,https://bad.example/",
        "https://a;https://b",
    ],
)
def test_what_is_refused(value: str) -> None:
    with pytest.raises(SettingError, match="CORS_ALLOWED_ORIGINS=.*expected an origin such as") as caught:
        Environment({"CORS_ALLOWED_ORIGINS": value}).origins("CORS_ALLOWED_ORIGINS")
    assert "pw" not in str(caught.value)
