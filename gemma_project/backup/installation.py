"""Backup and restore of this installation, whatever its database."""

import shutil
import tempfile
import tomllib
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from gemma_project.backup.archive import (
    DATABASE,
    FORMAT,
    SECRET_NAMES,
    SECRETS,
    Manifest,
    opened_archive,
    write_archive,
)
from gemma_project.backup.errors import BackupError
from gemma_project.backup.postgresql import dump_tables, load_tables
from gemma_project.backup.sqlite import dump_sqlite, load_sqlite
from gemma_project.startup import migrate


def back_up(path: Path) -> Manifest:
    """Write an archive of the database and the secrets; the service may run meanwhile. Raises BackupError."""
    if not path.parent.is_dir():
        raise BackupError(f"{path.parent} is not a folder")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".backup-") as name:
        folder = Path(name)
        (folder / DATABASE).mkdir()
        (folder / SECRETS).mkdir()
        manifest = Manifest(
            format=FORMAT,
            version=service_version(),
            engine=connection.vendor,
            created_at=timezone.now().isoformat(timespec="seconds"),
            migrations=sorted(MigrationRecorder(connection).applied_migrations()),
        )
        if connection.vendor == "sqlite":
            dump_sqlite(folder / DATABASE)
        else:
            dump_tables(folder / DATABASE)
        for secret in _secrets_in(settings.GEMMA_DATA_DIR):
            shutil.copy2(secret, folder / SECRETS / secret.name)
        write_archive(path, folder, manifest)
        return manifest


def restore(path: Path, *, replace: bool = False) -> Manifest:
    """Put an archive in the place of this installation's data; no other process may use it. Raises BackupError.

    Without ``replace`` only an installation without users is restored. The tables are brought up to date afterwards.
    """
    with opened_archive(path, beside=settings.GEMMA_DATA_DIR) as (manifest, folder):
        if manifest.engine != connection.vendor:
            raise BackupError(f"the backup is of {manifest.engine}, this database is {connection.vendor}")
        _check_not_newer(manifest)
        migrate()
        if not replace and get_user_model()._default_manager.exists():
            raise BackupError("this installation has users, whose data would be lost: add --replace")
        if connection.vendor == "sqlite":
            load_sqlite(folder / DATABASE)
        else:
            _check_migrations(manifest)
            load_tables(folder / DATABASE)
        for secret in _secrets_in(folder / SECRETS):
            target = settings.GEMMA_DATA_DIR / secret.name
            shutil.copyfile(secret, target)
            target.chmod(0o600)
        migrate()
        return manifest


def service_version() -> str:
    try:
        project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text(encoding="utf-8"))
    except OSError:
        return "unknown"
    return str(project["project"]["version"])


def _check_not_newer(manifest: Manifest) -> None:
    """Raises BackupError for a backup with tables that this version does not know, and could not bring up to date."""
    migrations = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    unknown = [f"{app}.{name}" for app, name in sorted(manifest.migrations) if (app, name) not in migrations]
    if unknown:
        names = ", ".join(unknown[:3])
        raise BackupError(
            f"the backup is of version {manifest.version}, which is newer than this one ({service_version()}): "
            f"changes of its tables are not known here ({names}). Install that version and restore it there"
        )


def _check_migrations(manifest: Manifest) -> None:
    """Raises BackupError when the tables of this version differ: rows alone are in the backup, not their columns."""
    here = sorted(MigrationRecorder(connection).applied_migrations())
    if here != [tuple(migration) for migration in manifest.migrations]:
        raise BackupError(f"the backup has the tables of version {manifest.version}: restore it there, then upgrade")


def _secrets_in(folder: Path) -> list[Path]:
    return [folder / name for name in SECRET_NAMES if (folder / name).is_file()]
