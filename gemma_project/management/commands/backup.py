"""`manage.py backup FILE`: database and secrets in one archive, while the service runs."""

import argparse
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from gemma_project.backup.errors import BackupError
from gemma_project.backup.installation import back_up


class Command(BaseCommand):
    help = (
        "Writes users, conversations, memories, settings of the admin and the generated secrets to FILE (.tar.gz, "
        "readable for its owner alone). The service may run. The model, KV states and answers under way are not "
        "included: those go on after a restore as after a restart. `manage.py restore FILE` reads it."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="the archive; an existing one is replaced")

    def handle(self, *args: object, file: Path, **options: object) -> None:
        path = file.expanduser().absolute()
        try:
            manifest = back_up(path)
        except BackupError as error:
            raise CommandError(str(error)) from error
        size_mib = path.stat().st_size / 2**20
        self.stdout.write(f"{path}: {manifest.engine}, {size_mib:.1f} MiB")
