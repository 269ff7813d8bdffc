"""The output file: whole lines, each on the disk before the next, appended by one process at a time.

Beside it are ``.state`` (the unfinished run) and ``.failed`` (the lines without an answer).
"""

import fcntl
import json
import os
import re
import uuid
from array import array
from pathlib import Path
from typing import Any, Self

import msgspec

from chat.batch.errors import BatchError, InputChanged, OutputBusy, OutputForeign
from chat.batch.inputs import BatchInput, BatchOptions, LineFailure

# 8 bytes of memory per line; a greater number was not written by this program.
MAX_LINES = 1_000_000_000
IS_DIGEST = re.compile("[0-9a-f]{32}").fullmatch


class ResultMark(msgspec.Struct, frozen=True):
    """The fields of a result that a later start reads."""

    line: int
    digest: str


class RunState(msgspec.Struct, frozen=True):
    """The run of an output file; ``run`` is part of the idempotency keys of its prompts."""

    run: str
    options: dict[str, Any]


class CompletedLines:
    """Lines with an answer and the start of their digests: 8 bytes per line."""

    def __init__(self) -> None:
        self._marks = array("Q")
        self.count = 0

    def add(self, mark: ResultMark) -> None:
        missing = mark.line - len(self._marks)
        if missing > 0:
            self._marks.extend([0]) if missing == 1 else self._marks.frombytes(bytes(8 * missing))
        self.count += not self._marks[mark.line - 1]
        self._marks[mark.line - 1] = _short(mark.digest)

    def __contains__(self, line: int) -> bool:
        return line <= len(self._marks) and self._marks[line - 1] != 0

    def agrees(self, line: int, digest: str) -> bool:
        return self._marks[line - 1] == _short(digest)


class BatchOutput:
    """An open, locked output file; a context manager. The lock ends with the process."""

    def __init__(self, path: Path) -> None:
        """Raises OutputBusy, OutputForeign, BatchError."""
        self.path = path
        self.state_path = path.with_name(path.name + ".state")
        self.failed_path = path.with_name(path.name + ".failed")
        self.done = CompletedLines()
        try:
            if path.exists() and not path.is_file():
                raise BatchError(f"{path} is not a regular file; use - for standard output")
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise OutputBusy(f"another batch_prompts is writing {path}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def wipe(self) -> None:
        """Delete the results of the previous run."""
        os.ftruncate(self._fd, 0)
        for path in (self.state_path, self.failed_path):
            path.unlink(missing_ok=True)

    def load(self) -> None:
        """Read the answered lines; truncate a line that a killed process left incomplete. Raises OutputForeign."""
        decoder = msgspec.json.Decoder(ResultMark)
        end = number = 0
        with self.path.open("rb") as file:
            for data in file:
                number += 1
                if not data.endswith(b"\n"):
                    break
                try:
                    mark = decoder.decode(data)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise self._foreign(number) from error
                if not 0 < mark.line <= MAX_LINES or not IS_DIGEST(mark.digest):
                    raise self._foreign(number)
                self.done.add(mark)
                end += len(data)
            else:
                return
        if number == 1 and not self.state_path.exists():
            # No result and no state file: a foreign text without a line end.
            raise self._foreign(number)
        os.ftruncate(self._fd, end)
        os.fsync(self._fd)

    def state(self) -> RunState | None:
        """Return the unfinished run of this file, None when there is none."""
        try:
            return msgspec.json.decode(self.state_path.read_bytes(), type=RunState)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, RecursionError, OSError) as error:
            raise OutputForeign(f"{self.state_path} cannot be read ({error}); use --restart to begin again") from error

    def check_options(self, options: BatchOptions) -> None:
        """Raises InputChanged when the run was started with other options."""
        state = self.state()
        before, now = state.options if state else options.as_dict, options.as_dict
        if changed := sorted(name for name in before | now if before.get(name) != now.get(name)):
            raise InputChanged(
                f"{self.path} was started with other options: {', '.join(changed)}. "
                "Use the same ones to continue, or --restart to begin again."
            )

    def begin(self, options: BatchOptions) -> str:
        """Return the name of the run, stored before its first prompt is sent."""
        state = self.state()
        if state is None:
            state = RunState(run=uuid.uuid4().hex, options=options.as_dict)
            temporary = self.state_path.with_name(self.state_path.name + ".new")
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(state))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.state_path)
            # The directory entry must be on the disk, too: a run without its keys would send every prompt again.
            directory = os.open(self.path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(directory)
            os.close(directory)
        return state.run

    def check_input(self, source: BatchInput) -> int:
        """Return the number of prompts. Raises InputChanged when an answered line has changed."""
        count = n_present = 0
        for line in source.lines():
            count += 1
            if line.number not in self.done:
                continue
            n_present += 1
            if not self.done.agrees(line.number, source.digest(line)):
                raise InputChanged(
                    f"{source.unit} {line.number} of {source.path}, or an option, has changed since {self.path} was "
                    "written. Restore it to continue, or use --restart to begin again."
                )
        if n_present < self.done.count:
            raise InputChanged(
                f"{self.path} has answers to {self.done.count - n_present} lines that {source.path} no longer has. "
                "Restore them to continue, or use --restart to begin again."
            )
        return count

    def append(self, result: dict[str, Any]) -> None:
        """Append a result and wait until it is on the disk. Raises BatchError when the disk is full."""
        data = json.dumps(result, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        end = os.fstat(self._fd).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, end)
            raise BatchError(f"cannot write {self.path}: {error.strerror}") from error
        self.done.add(ResultMark(result["line"], result["digest"]))

    def finish(self, failures: int) -> None:
        """End the run; without failures only the results remain."""
        if not failures:
            self.state_path.unlink(missing_ok=True)
            self.failed_path.unlink(missing_ok=True)

    def forget_failures(self) -> None:
        """Delete the list of failures, since this run tries those lines again."""
        self.failed_path.unlink(missing_ok=True)

    def append_failure(self, failure: LineFailure) -> None:
        record = {
            "line": failure.line,
            "id": failure.prompt_id,
            "error": {"code": failure.code, "message": failure.message},
        }
        with self.failed_path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _foreign(self, number: int) -> OutputForeign:
        return OutputForeign(
            f"line {number} of {self.path} is not a result of batch_prompts; nothing was changed. "
            "Choose another file, or use --restart to overwrite this one."
        )


def _short(digest: str) -> int:
    # 0 means "no answer".
    return int(digest[:16], 16) or 1
