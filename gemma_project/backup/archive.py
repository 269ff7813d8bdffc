"""The archive: a tar file, compressed, with a manifest, the parts of the database, and the generated secrets.

manifest.json   format, version of the service, engine of the database, migrations, SHA-256 of every other member
database/...    one SQLite file, or one file for each table of PostgreSQL
secrets/...     secret_key, jwt_signing_key: without them sessions and tokens end with a restore
"""

import hashlib
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from gemma_project.backup.errors import BackupError

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE, SECRETS = "database", "secrets"
SECRET_NAMES = ("secret_key", "jwt_signing_key")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """Contents of an archive; ``digests``: SHA-256 by name of member."""

    format: int
    version: str
    engine: str
    created_at: str
    migrations: list[tuple[str, str]]
    digests: dict[str, str] = field(default_factory=dict)


def write_archive(path: Path, folder: Path, manifest: Manifest) -> None:
    """Write the files of ``folder`` as a private archive, which is complete or not there. Raises BackupError."""
    members = sorted(file for file in folder.rglob("*") if file.is_file())
    digests = {file.relative_to(folder).as_posix(): _digest(file) for file in members}
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest) | {"digests": digests}, indent=2), encoding="utf-8")
    draft = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for member in (folder / MANIFEST, *members):
                archive.add(member, arcname=member.relative_to(folder).as_posix(), recursive=False)
            archive.close()
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BackupError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def opened_archive(path: Path, *, beside: Path) -> Iterator[tuple[Manifest, Path]]:
    """Unpack an archive into a private folder below ``beside``; yield its manifest and the folder.

    Every member is checked against the manifest. Raises BackupError.
    """
    with tempfile.TemporaryDirectory(dir=beside, prefix=".restore-") as name:
        folder = Path(name)
        try:
            with tarfile.open(path, mode="r:gz") as archive:
                # Refuses absolute paths, links and special files: an archive may come from anywhere.
                archive.extractall(folder, filter="data")
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise BackupError(f"{path} cannot be read as an archive: {error}") from error
        yield _checked_manifest(path, folder), folder


def _checked_manifest(path: Path, folder: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise BackupError(f"{path} is not a backup of this service: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{path} has format {manifest.format}; this version reads {FORMAT}")
    members = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {MANIFEST}
    damaged = [name for name in sorted(members) if manifest.digests.get(name) != _digest(folder / name)]
    damaged += sorted(set(manifest.digests) - members)
    if damaged:
        raise BackupError(f"{path} is damaged: {', '.join(damaged[:5])}")
    return manifest


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
