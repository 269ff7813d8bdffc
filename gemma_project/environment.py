"""Strict reading of environment variables: every refusal names the variable, the value and what was expected.

Knows no Django settings. An empty variable counts as unset, because containers pass empty ones.
"""

import ipaddress
import math
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.core.exceptions import ImproperlyConfigured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Choice = TypeVar("Choice", bound=StrEnum)

DEFAULT_PORTS = {"http": 80, "https": 443}
PUBLIC_FIELDS = ("db", "virtual_host", "sslmode", "timeout")
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def without_password(url: str) -> str:
    """Return the address without its password, for logs and messages.

    Nothing is parsed: an address is shown because it is malformed, and its password may hold any character.
    """
    credentials, at, rest = url.rpartition("@")
    scheme, colons, _ = credentials.partition("://")
    without_credentials = f"{scheme if colons else ''}{colons}***@{rest}" if at else url
    address, mark, query = without_credentials.partition("?")
    fields = [_field_without_value(field) for field in query.split("&")]
    return f"{address}{mark}{'&'.join(fields)}"


def _field_without_value(field: str) -> str:
    """Hide the value of a field in a query, unless it is known to be public."""
    name, equals, _ = field.partition("=")
    return field if name in PUBLIC_FIELDS or not equals else f"{name}=***"


def _origin(name: str, item: str) -> str:
    """Return the origin in lower case and without its scheme's own port, which browsers leave out."""
    expected = "an origin such as https://chat.example or http://localhost:3000: scheme and host, no path, no wildcard"
    try:
        parts = urlsplit(item.lower())
        port = parts.port
    except ValueError as error:
        raise SettingError(name, without_password(item), f"{expected} ({error})") from None
    host = parts.netloc.removesuffix(f":{port}")
    is_origin = parts.geturl() == f"{parts.scheme}://{parts.netloc}" and port != 0 and "@" not in host
    if parts.scheme not in DEFAULT_PORTS or not is_origin or not HOST.fullmatch(host):
        raise SettingError(name, without_password(item), expected)
    return f"{parts.scheme}://{host}" + ("" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}")


class SettingError(ImproperlyConfigured):
    """A variable's value cannot be used; the message is meant for the operator, without a traceback."""

    def __init__(self, name: str, value: str, expected: str) -> None:
        super().__init__(f"{name}={value!r}: expected {expected}")
        self.name = name


class Environment:
    """Typed access to the variables of one process. ``names`` collects the variables that were read."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.names: set[str] = set()

    def optional(self, name: str) -> str | None:
        """Return the variable's text without surrounding blanks; None when unset or empty."""
        self.names.add(name)
        return self._values.get(name, "").strip() or None

    def is_set(self, name: str) -> bool:
        return bool(self._values.get(name, "").strip())

    def unknown(self, prefix: str) -> list[str]:
        """Return the variables with the prefix that no setting reads."""
        return sorted(name for name in self._values if name.startswith(prefix) and name not in self.names)

    def text(self, name: str, default: str) -> str:
        return self.optional(name) or default

    def flag(self, name: str, default: bool) -> bool:
        value = self.optional(name)
        if value is None:
            return default
        if value.lower() not in FLAGS:
            raise SettingError(name, value, "true or false")
        return FLAGS[value.lower()]

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        value = self.optional(name)
        if value is None:
            return default
        expected = f"a whole number from {minimum} to {maximum}"
        try:
            number = int(value, 10)
        except ValueError:
            raise SettingError(name, value, expected) from None
        if not minimum <= number <= maximum:
            raise SettingError(name, value, expected)
        return number

    def decimal(self, name: str, default: float, *, minimum: float, maximum: float) -> float:
        value = self.optional(name)
        if value is None:
            return default
        expected = f"a number from {minimum:g} to {maximum:g}"
        try:
            number = float(value)
        except ValueError:
            raise SettingError(name, value, expected) from None
        if not math.isfinite(number) or not minimum <= number <= maximum:
            raise SettingError(name, value, expected)
        return number

    def choice(self, name: str, default: Choice) -> Choice:
        value = self.optional(name)
        if value is None:
            return default
        kind = type(default)
        try:
            return kind(value.lower())
        except ValueError:
            raise SettingError(name, value, f"one of {', '.join(kind)}") from None

    def time_zone(self, name: str, default: str) -> str:
        """Return the name of a zone in the IANA database."""
        value = self.text(name, default)
        # OSError: the name is that of a directory. ValueError: its path leaves the database.
        try:
            return ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingError(name, value, "a time zone such as Europe/Berlin or UTC") from None

    def language(self, name: str, default: str) -> str:
        """Return a language with or without a country, as in ``de`` and ``en-GB``."""
        value = self.text(name, default)
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Z]{2})?", value):
            raise SettingError(name, value, "a language such as de or en-GB")
        return value

    def one_of(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default).lower()
        if value not in choices:
            raise SettingError(name, value, f"one of {', '.join(choices)}")
        return value

    def path(self, name: str) -> Path | None:
        """Return an absolute path (``~`` is the home directory), which need not exist; None when unset."""
        value = self.optional(name)
        if value is None:
            return None
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError as error:
            raise SettingError(name, value, f"a path ({error})") from None

    def file_text(self, name: str) -> str | None:
        """Return the text of the file that the variable names, without surrounding blanks; None when unset."""
        path = self.path(name)
        if path is None:
            return None
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SettingError(name, str(path), f"a readable text file ({error})") from None

    def text_or_file(self, name: str) -> str | None:
        """Return the variable, or the text of the file named by the variable with ``_FILE`` appended."""
        from_file = self.file_text(f"{name}_FILE")
        return self.optional(name) or from_file

    def items(self, name: str, default: str) -> list[str]:
        return [item.strip() for item in self.text(name, default).split(",") if item.strip()]

    def proportions(self, name: str, *, at_most: int) -> tuple[float, ...]:
        """Return comma-separated shares, such as ``3,1``; none when unset."""
        expected = f"comma-separated numbers of at least 0, not all of them 0 and at most {at_most}, such as 3,1"
        value = self.optional(name)
        if value is None:
            return ()
        try:
            shares = tuple(float(item) for item in value.split(","))
        except ValueError:
            raise SettingError(name, value, expected) from None
        are_shares = all(math.isfinite(share) and share >= 0 for share in shares) and any(shares)
        if not are_shares or len(shares) > at_most:
            raise SettingError(name, value, expected)
        return shares

    def networks(self, name: str, default: str) -> list[Network]:
        networks = []
        for item in self.items(name, default):
            try:
                networks.append(ipaddress.ip_network(item))
            except ValueError as error:
                raise SettingError(name, item, f"a network such as 127.0.0.0/8 ({error})") from None
        return networks

    def origins(self, name: str) -> list[str]:
        """Comma-separated origins of web pages, as browsers send them; none when unset."""
        return [_origin(name, item) for item in self.items(name, "")]

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        """Return a URL of one of the schemes, without a closing slash; None when unset. Errors hide the password."""
        return self._url_of(name, self.optional(name), schemes)

    def url_or_file(self, name: str, schemes: tuple[str, ...]) -> str | None:
        """Return the variable's URL, or the one in the file named by the variable with ``_FILE`` appended."""
        return self._url_of(name, self.text_or_file(name), schemes)

    @staticmethod
    def _url_of(name: str, value: str | None, schemes: tuple[str, ...]) -> str | None:
        if value is None:
            return None
        expected = f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        try:
            parts = urlsplit(value)
            port_is_a_number = parts.port is None or parts.port > 0
        except ValueError:  # its text quotes what it takes for the port, which may be the rest of a password
            raise SettingError(name, without_password(value), expected) from None
        if parts.scheme not in schemes or not port_is_a_number or not (parts.netloc or parts.path.strip("/")):
            raise SettingError(name, without_password(value), expected)
        return value.rstrip("/")
