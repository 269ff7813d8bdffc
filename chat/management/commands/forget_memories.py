"""`manage.py forget_memories PATH... | --job ID | --owner NAME`: deletes memories by where they came from."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.management.options import caller_of
from chat.rag.ingest.imported_files import Brought, forget, imported_below
from chat.rag.models import SHARED, ImportedFile


class Command(BaseCommand):
    help = (
        "Deletes memories from the built-in store: those that files at or below PATH brought (which need not exist any "
        "more), the transcript with a job id, or all memories of a user. Answers keep their copies of sources until "
        "their conversations are deleted."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="an imported file, or a directory")
        parser.add_argument("--job", metavar="ID", help="the transcript with this id; of --owner, else a shared one")
        parser.add_argument("--owner", dest="user", metavar="NAME", help="a user; alone: all memories of that user")
        parser.add_argument("--dry-run", action="store_true", help="report what would be deleted, and delete nothing")

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        owner = caller_of(options).key if options["user"] else None
        files: list[ImportedFile] = []
        if options["paths"] and options["job"] is None:
            files = [file for file in imported_below(options["paths"]) if owner in (None, file.owner)]
            parts = [*map(Brought.by_file, files), *map(Brought.by_path, options["paths"])]
        elif options["job"] is not None and not options["paths"]:
            parts = [Brought.of_owner(owner or SHARED, job_id=options["job"])]
        elif owner is not None and not options["paths"]:
            files = list(ImportedFile.objects.filter(owner=owner))
            parts = [Brought.of_owner(owner)]
        else:
            raise CommandError("give one of PATH, --job and --owner")
        brought = Brought(
            tuple({row for part in parts for row in part.transcripts if owner in (None, row[0])}),
            tuple({row for part in parts for row in part.notes if owner in (None, row[0])}),
        )
        if not (brought or files):
            raise CommandError("there are no such memories")
        what = f"{len(brought.transcripts)} transcripts and {len(brought.notes)} notes"
        if options["dry_run"]:
            self.stdout.write(f"{what} would be deleted.")
            return
        forget(brought)
        ImportedFile.objects.filter(pk__in=[file.pk for file in files]).delete()
        self.stdout.write(f"{what} deleted.")
