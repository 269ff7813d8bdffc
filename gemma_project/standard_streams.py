"""The standard streams of a command in every state: closed, full, without a reader, with few characters."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

SERVICES = {"serve", "web", "worker"}  # these print for people who look on, and go on without
OF_THE_DEVICE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


@contextmanager
def standard_streams(command: str) -> Iterator[None]:
    """Run a command with streams that it can write to; end with one line where one of them, or a disk, is full."""
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if sys.stdout is None:
        if command not in SERVICES:
            # Before anything is done: what is printed once, such as a key, would be lost.
            sys.exit("error: standard output is closed")
        sys.stdout = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in OF_THE_DEVICE:
            raise
        _discard_output()
        sys.exit(f"error: {error.filename or 'standard output'}: {error.strerror}")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def _discard_output() -> None:
    """Python writes at its exit what is left in the buffer, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
