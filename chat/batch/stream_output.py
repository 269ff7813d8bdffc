"""Results on standard output: nothing is kept beside them, so a stopped run cannot be continued."""

import json
import os
import sys
from pathlib import Path
from typing import Any, Self, TextIO

from chat.batch.errors import BatchError
from chat.batch.inputs import BatchInput, BatchOptions, LineFailure
from chat.batch.outputs import CompletedLines, ResultMark, RunState

STDOUT = Path("-")


class StreamOutput:
    """The counterpart of ``BatchOutput`` for a pipe or terminal."""

    failed_path: Path | None = None

    def __init__(self, stream: TextIO | None, run: str) -> None:
        """Raises BatchError."""
        if stream is None:
            raise BatchError("standard output is closed")
        self.done = CompletedLines()
        self._buffer = stream.buffer
        self._run = run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def wipe(self) -> None: ...

    def load(self) -> None: ...

    def state(self) -> RunState | None:
        return None

    def check_options(self, options: BatchOptions) -> None: ...

    def begin(self, options: BatchOptions) -> str:
        return self._run

    def check_input(self, source: BatchInput) -> int:
        return sum(1 for _ in source.lines())

    def append(self, result: dict[str, Any]) -> None:
        """Write a result. Raises BatchError when the reader has gone or the device is full."""
        try:
            self._buffer.write(json.dumps(result, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self._buffer.flush()
        except OSError as error:
            # Python flushes the stream once more at exit and would report the same error again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
            raise BatchError(f"cannot write to standard output: {error.strerror}") from error
        self.done.add(ResultMark(result["line"], result["digest"]))

    def append_failure(self, failure: LineFailure) -> None: ...

    def forget_failures(self) -> None: ...

    def finish(self, failures: int) -> None: ...
