"""The address of Redis: the socket of our own Valkey, in the spelling of each client."""

import hashlib
import os
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

# sockaddr_un holds 108 bytes, the closing zero included.
SOCKET_PATH_BYTES = 107


def valkey_socket(data_dir: Path) -> Path:
    """Return the socket path of a data directory, the same in every process.

    A directory too deep for a socket address gets one of its own under the system's temporary directory.
    """
    path = data_dir / "run" / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    mark = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"gemma-{os.getuid()}-{mark}" / "valkey.sock"


def socket_url(path: Path) -> str:
    return f"unix://{quote(str(path))}"


def for_celery(url: str) -> str:
    """kombu spells a unix socket ``redis+socket`` and its database number ``virtual_host``."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"
