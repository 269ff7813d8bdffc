"""Finds the files to import: files named by the operator, and files of known formats below named directories."""

from collections.abc import Iterable
from pathlib import Path

from chat.rag.ingest.formats import SUFFIXES


def find_files(paths: Iterable[Path]) -> tuple[list[Path], int]:
    """Return the distinct files in order, and how many files the directories hold that are not imported: those of
    unknown formats, and symbolic links, which may lead anywhere. A link that is named itself is followed.

    Raises FileNotFoundError.
    """
    files: dict[Path, Path] = {}
    n_skipped = 0
    for path in paths:
        if not path.is_dir():
            path.stat()
            files.setdefault(path.resolve(), path)
            continue
        below = sorted(
            file
            for file in path.rglob("*")
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        candidates = (file for file in below if file.suffix.lower() in SUFFIXES)
        # No link may lead to a file, or to a directory above it.
        importable = [file for file in candidates if file.resolve() == path.resolve() / file.relative_to(path)]
        n_skipped += len(below) - len(importable)
        for file in importable:
            files.setdefault(file.resolve(), file)
    return list(files.values()), n_skipped
