"""Private files of an installation, of mode 0600: secrets that are generated once, and the database."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


def read_if_there(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def read_or_create(path: Path) -> str:
    """Return the secret in the file, generated on first use; concurrent processes read the same one."""
    if (secret := read_if_there(path)) is not None:
        return secret
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    draft = Path(name)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
    try:
        # A link fails if the name is taken, so a half-written secret is never seen and the first one stays.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_text(encoding="ascii").strip()


def make_private(path: Path) -> None:
    """Create an empty file for its owner alone, or take an existing one, with its journals, from all others."""
    # What cannot be created or changed here is reported by whatever opens it.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if file.exists() and file.stat().st_mode & 0o077:
                file.chmod(file.stat().st_mode & 0o700)
