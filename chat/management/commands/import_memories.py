"""`manage.py import_memories PATH...`: the command line around ``chat.rag.ingest``."""

import argparse
import json
import signal
import sys
from collections import Counter
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from tqdm import tqdm

from chat.management.options import caller_of
from chat.management.progress import bar
from chat.management.terminal import printable
from chat.rag.ingest.dates import moment_of
from chat.rag.ingest.file_discovery import find_files
from chat.rag.ingest.formats import FileFormat
from chat.rag.ingest.imported_files import Brought, forget, imported_below
from chat.rag.ingest.importer import FileReport, ImportOptions, import_file
from chat.rag.models import ImportedFile

PROBLEMS_SHOWN = 20
FILES_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Imports transcripts and notes into the built-in memory store: JSONL (one memory or segment per line), JSON of "
        "Whisper and of speech services, SubRip, WebVTT and other captions with speakers, tables (CSV), Markdown (a "
        "note per heading) and plain text (a note per paragraph), which are transcripts when lines begin with names or "
        "times. A second run imports nothing twice; of changed, renamed and emptied files it replaces or removes what "
        "they brought, and what they brought for another owner. Exit status: 0 all imported, 1 some were not, 130 "
        "stopped by Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "paths", nargs="+", type=Path, metavar="PATH", help="a file, or a directory with everything below it"
        )
        owner = parser.add_mutually_exclusive_group()
        owner.add_argument("--owner", dest="user", metavar="NAME", help="store as memories of this user alone")
        owner.add_argument(
            "--shared",
            action="store_true",
            help="store as memories of all users (the default, but for files of a user)",
        )
        parser.add_argument(
            "--format", choices=list(FileFormat), help="format of all files; else it is detected for each"
        )
        parser.add_argument(
            "--encoding", type=_encoding, default="", help="encoding of all files, such as windows-1252 or gb18030"
        )
        parser.add_argument(
            "--date",
            metavar="WHEN",
            help="when it was recorded, for files that do not say so themselves (ISO 8601); without it a date in the "
            "file's name counts, then the time it was last changed",
        )
        parser.add_argument(
            "--speaker-map",
            action="append",
            default=[],
            metavar="FROM=TO",
            help="another name for a speaker, such as SPEAKER_00=Sarah, or a JSON file with such names; repeatable",
        )
        parser.add_argument(
            "--prune", action="store_true", help="remove what files at or below PATH brought that are gone"
        )
        parser.add_argument("--dry-run", action="store_true", help="report what would be done, and do nothing")

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        import_options = ImportOptions(
            owner=caller_of(options).key if options["user"] else "",
            shares=options["shared"],
            form=FileFormat(options["format"]) if options["format"] else None,
            encoding=options["encoding"],
            date=_date(options["date"]),
            speakers=_speakers(options["speaker_map"]),
            dry_run=options["dry_run"],
        )
        try:
            missing_files = _gone(options["paths"], import_options.owner) if options["prune"] else []
            # With --prune a path that no longer exists may be named.
            missing_paths = {path.resolve() for path in options["paths"]} & {Path(file.path) for file in missing_files}
            files, n_skipped = find_files(path for path in options["paths"] if path.resolve() not in missing_paths)
            reports = self.import_all(files, import_options)
            n_pruned = self.prune(missing_files, dry_run=options["dry_run"])
        except KeyboardInterrupt:
            self.stderr.write("Stopped; the imported part stays. Start again to continue.")
            sys.exit(128 + signal.SIGINT)  # the shell's convention for a process that a signal ended
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error
        except DatabaseError as error:
            raise CommandError(f"the database failed: {error}. Start again to continue.") from error
        if options["dry_run"]:
            self.stdout.write("A dry run: nothing was changed.")
        self.n_shown = sys.maxsize if options["verbosity"] > 1 else PROBLEMS_SHOWN
        self.print_reports(reports, n_skipped, shows_files=options["verbosity"] > 1 or len(files) <= FILES_SHOWN)
        if missing_files:
            self.stdout.write(f"{len(missing_files)} files are gone: {n_pruned} transcripts and notes removed.")
        if any(report.problems for report in reports):
            sys.exit(1)

    def import_all(self, files: list[Path], options: ImportOptions) -> list[FileReport]:
        # An empty file counts as a byte, so that the bar has a total.
        sizes = [max(1, path.stat().st_size) for path in files]
        reports = []
        done = 0
        with bar(total=sum(sizes), unit="B", unit_scale=True) as progress:
            for path, size in zip(files, sizes, strict=True):
                reports.append(import_file(path, options, partial(_advance, progress, size)))
                # Unchanged and rejected parts are done, too.
                done += size
                progress.update(done - progress.n)
        return reports

    def prune(self, missing_files: list[ImportedFile], *, dry_run: bool) -> int:
        """Remove what the files brought, unless an import has just found them under another name."""
        n_removed = 0
        for file in missing_files:
            brought = Brought.by_file(file)
            n_removed += len(brought) if dry_run else forget(brought)
            if not dry_run and file.pk:
                file.delete()
        return n_removed

    def print_reports(self, reports: list[FileReport], n_skipped: int, *, shows_files: bool) -> None:
        for report in reports if shows_files else ():
            self.stdout.write(printable(f"{report.path}: {report.summary()}"))
        total = Counter[str]()
        for report in reports:
            total.update(segments=report.n_segments, notes=report.n_notes)
            total.update(unchanged=report.n_unchanged, removed=report.n_removed)
        self.stdout.write(
            f"{len(reports)} files: {total['segments']} segments and {total['notes']} notes imported, "
            f"{total['unchanged']} transcripts and notes unchanged, {total['removed']} removed."
        )
        if n_skipped:
            self.stdout.write(f"{n_skipped} files of other formats were skipped.")
        self.print_list("problems", [f"{report.path}: {entry}" for report in reports for entry in report.problems])
        self.print_list("remarks", [f"{report.path}: {entry}" for report in reports for entry in report.remarks])

    def print_list(self, noun: str, entries: list[str]) -> None:
        if entries:
            self.stderr.write(f"{len(entries)} {noun}:")
        # A file of the wrong format has a problem in every line.
        for entry in entries[: self.n_shown]:
            self.stderr.write(f"  {printable(entry)}")
        if len(entries) > self.n_shown:
            self.stderr.write(f"  and {len(entries) - self.n_shown} more, which -v2 shows")


def _gone(paths: list[Path], owner: str) -> list[ImportedFile]:
    """Return the imported files of ``owner`` at or below ``paths`` that no longer exist. Raises CommandError."""
    imported = [file for file in imported_below(paths) if file.owner == owner]
    missing_files = [file for file in imported if not Path(file.path).exists()]
    for path in paths:
        # A disk that is not mounted is an empty directory.
        if (
            path.is_dir()
            and not any(path.iterdir())
            and any(Path(file.path).is_relative_to(path.resolve()) for file in missing_files)
        ):
            raise CommandError(f"{path} is empty; `manage.py forget_memories {path}` removes what it held")
    return missing_files


def _advance(progress: tqdm, size: int, share: float) -> None:
    progress.update(share * size)


def _encoding(name: str) -> str:
    try:
        b"".decode(name)
    except LookupError as error:
        raise argparse.ArgumentTypeError(f"{name!r} is no encoding of texts") from error
    return name


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = moment_of(text)
    if moment is None:
        raise CommandError(f"--date {text!r}: expected a date or time in ISO 8601, such as 2026-03-01")
    return moment


def _speakers(arguments: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for argument in arguments:
        before, equals, after = argument.partition("=")
        if equals and before and after:
            names[before.strip()] = after.strip()
        else:
            names |= _speakers_in(Path(argument))
    return names


def _speakers_in(path: Path) -> dict[str, str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"--speaker-map {path}: neither FROM=TO nor a file ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--speaker-map {path}: is not JSON ({error})") from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CommandError(f"--speaker-map {path}: expected a JSON object of names")
    return names
