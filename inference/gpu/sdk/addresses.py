"""Addresses of Redis and coordinator for tenants of the same user on this machine, written by ``manage.py serve``.

A file in a folder of that user alone: the address may hold a password, and a foreign one would hand over the GPU.
"""

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class GpuAddresses:
    redis_url: str
    coordinator_url: str


def address_file() -> Path:
    """Return the path, or that of GPU_ADDRESS_FILE."""
    chosen = os.environ.get("GPU_ADDRESS_FILE")
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"gemma-gpu-{os.getuid()}" / "addresses.json"


def write_addresses(addresses: GpuAddresses) -> Path:
    """Write the file, in place of an older one. Raises OSError, also where its folder is another user's."""
    path = address_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(path.parent):
        raise PermissionError(f"{path.parent} belongs to another user")
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(addresses), file)
    new.replace(path)
    return path


def read_addresses() -> GpuAddresses | None:
    """Return what ``serve`` has written; None without a file that this user alone can have written."""
    path = address_file()
    try:
        if not (_is_own(path) and _is_own(path.parent)):
            return None
        value = json.loads(path.read_text(encoding="utf-8"))
        return GpuAddresses(str(value["redis_url"]), str(value["coordinator_url"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def remove_addresses(addresses: GpuAddresses) -> None:
    """Remove the file, unless another installation has written it since."""
    if read_addresses() == addresses:
        with suppress(OSError):
            address_file().unlink()


def _is_own(path: Path) -> bool:
    status = path.lstat()
    may_others_write = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return status.st_uid == os.getuid() and not may_others_write
