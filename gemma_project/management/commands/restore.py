"""`manage.py restore FILE`: the data of a backup in the place of this installation's."""

import argparse
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gemma_project.backup.errors import BackupError
from gemma_project.backup.installation import restore
from gemma_project.startup import NotReady
from gemma_project.supervisor.errors import StartupError
from gemma_project.supervisor.lock import DataDirLock


class Command(BaseCommand):
    help = (
        "Puts the data of a backup in the place of this installation's, with the secrets; stop the service first. A "
        "backup of an earlier version is brought up to date (PostgreSQL: restore it with that version, then upgrade)."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="an archive of `manage.py backup`")
        parser.add_argument("--replace", action="store_true", help="also when this installation has users already")

    def handle(self, *args: object, file: Path, replace: bool, **options: object) -> None:
        try:
            # A running `serve` holds the lock, and would write into the file that is replaced.
            with DataDirLock(settings.GEMMA_DATA_DIR):
                manifest = restore(file.expanduser().absolute(), replace=replace)
        except (BackupError, NotReady, StartupError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"restored: {manifest.engine}, backup of {manifest.created_at}, version {manifest.version}")
