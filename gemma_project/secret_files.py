"""Secrets generated once per installation: files of mode 0600 in its data directory."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


def read_or_create(path: Path) -> str:
    """Return the secret in the file, generated on first use; concurrent processes read the same one."""
    with suppress(FileNotFoundError):  # before the first use
        return path.read_text(encoding="ascii").strip()
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
