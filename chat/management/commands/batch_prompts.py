"""`manage.py batch_prompts IN OUT`: command line of ``chat.batch``."""

import argparse
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from setproctitle import setproctitle

from chat.access.callers import Caller
from chat.batch.errors import BatchError
from chat.batch.input_files import PromptFormat
from chat.batch.inputs import BatchInput, BatchOptions, LineFailure
from chat.batch.outputs import BatchOutput
from chat.batch.runner import Batch
from chat.batch.stream_output import STDOUT, StreamOutput
from chat.batch.submission import cancel_run
from chat.errors import ChatError
from chat.management.options import add_request_arguments, caller_of, request_fields, require_service, system_prompt
from chat.management.progress import bar

FAILURES_SHOWN = 20
CONTINUE = " Start again to continue."
REPEAT_NOTICE_SECS = 30.0


class Command(BaseCommand):
    help = (
        "Answers every prompt of IN and appends the answers to OUT as they arrive, one JSON object per line. Started "
        "again after Ctrl-C, a kill or a power cut, it continues where it stopped. Batch priority: chats are served "
        "first. Exit status: 0 all lines answered, 1 some failed or it cannot run, 130 stopped by Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "input",
            type=Path,
            metavar="IN",
            help='one prompt per line: JSON objects with "prompt" or "messages" and optionally "id", "system" and any '
            "option of POST /chat, or plain text; also a JSON array of objects and texts; - is standard input",
        )
        parser.add_argument(
            "output",
            type=Path,
            metavar="OUT",
            help="file for the answers, for one process at a time; - is standard output, which cannot be continued",
        )
        parser.add_argument(
            "--format", choices=list(PromptFormat), default=PromptFormat.AUTO, help="format of IN; auto detects it"
        )
        parser.add_argument(
            "--concurrency",
            type=int,
            default=settings.GEMMA_PARALLEL * 2,  # a queued prompt for each slot: none is idle between two answers
            help="number of prompts in the service at a time (twice GEMMA_PARALLEL)",
        )
        add_request_arguments(parser)
        parser.add_argument("--store", action="store_true", help="keep a conversation for each prompt")
        parser.add_argument("--restart", action="store_true", help="overwrite OUT and begin again")
        parser.add_argument(
            "--patience",
            type=float,
            default=120.0,
            metavar="SECS",
            help="time to wait for a service that stops during the batch (120)",
        )

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        setproctitle("gemma-batch")
        if options["concurrency"] < 1:
            raise CommandError("--concurrency must be at least 1")
        try:
            self.run_batch(options)
        except KeyboardInterrupt:
            # Before the first prompt is sent; ``interruptible`` handles later ones.
            sys.exit(128 + signal.SIGINT)
        except BatchError as error:
            raise CommandError(str(error)) from error
        except ChatError as error:
            raise CommandError(f"{error.code}: {error.message}") from error

    def run_batch(self, options: dict[str, Any]) -> None:
        caller = caller_of(options)
        fields = {**request_fields(options), "store": options["store"]}
        batch_options = BatchOptions(fields=fields, system=system_prompt(options), owner=caller.key)
        form = PromptFormat(options["format"])
        source = BatchInput(options["input"], form, batch_options, settings.REQUEST_MAX_BYTES)
        if options["input"].is_file() and options["output"].is_file() and options["output"].samefile(options["input"]):
            raise CommandError("IN and OUT are the same file")
        # Before the service is asked for: an empty input needs none.
        if next(source.lines(), None) is None:
            self.stderr.write(f"{options['input']} is empty: there is nothing to answer.")
            return
        require_service()
        is_stream = options["output"] == STDOUT
        opened = StreamOutput(sys.stdout, run=uuid.uuid4().hex) if is_stream else BatchOutput(options["output"])
        with opened as output:
            if options["restart"]:
                self.abandon_previous_run(output)
            output.load()
            # A file with answers of other options must not be continued with these.
            output.check_options(batch_options)
            n_prompts = output.check_input(source)
            batch = Batch(
                caller=caller,
                source=source,
                output=output,
                run=output.begin(batch_options),
                concurrency=options["concurrency"],
                patience_secs=options["patience"],
            )
            output.forget_failures()
            self.run_to_end(batch, output, n_prompts)

    def run_to_end(self, batch: Batch, output: BatchOutput | StreamOutput, n_prompts: int) -> None:
        with BatchProgressBar(n_prompts, output.done.count) as progress, interruptible(batch) as interrupt:
            try:
                batch.run(progress)
            except BatchError:
                # A later start finds the prompts of a file, but not those of a pipe.
                if output.failed_path is None:
                    with suppress(BatchError):
                        batch.cancel()
                raise
            if batch.stopping.is_set():
                progress.notice("stopping; press Ctrl-C again to leave at once")
                batch.cancel()
        if interrupt.number is not None:
            self.stderr.write(
                f"{output.done.count} of {n_prompts} lines answered.{CONTINUE if output.failed_path else ''}"
            )
            sys.exit(128 + interrupt.number)
        output.finish(batch.n_failed)
        if batch.n_failed:
            self.print_failures(progress.failures, batch, output)
            sys.exit(1)
        self.stderr.write(f"All {n_prompts} lines answered.")

    def print_failures(self, failures: list[LineFailure], batch: Batch, output: BatchOutput | StreamOutput) -> None:
        self.stderr.write(f"{batch.n_failed} lines failed:")
        for failure in failures:
            self.stderr.write(f"  {batch.source.unit} {failure.line}: {failure.code}: {failure.message}")
        if batch.n_failed > len(failures):
            self.stderr.write(f"  and {batch.n_failed - len(failures)} more")
        if output.failed_path:
            self.stderr.write(f"All of them are in {output.failed_path}. Start again to try them again.")

    def abandon_previous_run(self, output: BatchOutput | StreamOutput) -> None:
        if state := output.state():
            cancel_run(state.run, Caller(state.options["owner"]))
        output.wipe()


class BatchProgressBar:
    """Progress bar, notices and the first failures, on stderr; OUT has the answers alone."""

    def __init__(self, n_prompts: int, n_done: int) -> None:
        self.failures: list[LineFailure] = []
        self._n_failed = 0
        self._n_tokens = 0
        self._noticed_at: dict[str, float] = {}
        self._bar = bar(total=n_prompts, initial=n_done, unit="prompt")

    def __enter__(self) -> "BatchProgressBar":
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def answered(self, n_tokens: int) -> None:
        self._n_tokens += n_tokens
        self._bar.set_postfix(tokens=self._n_tokens, failed=self._n_failed, refresh=False)
        self._bar.update()

    def failed(self, failure: LineFailure) -> None:
        self._n_failed += 1
        if len(self.failures) < FAILURES_SHOWN:
            self.failures.append(failure)
        self._bar.set_postfix(tokens=self._n_tokens, failed=self._n_failed, refresh=False)
        self._bar.update()

    # A service that is away would repeat its notice with every poll.
    def notice(self, text: str) -> None:
        now = time.monotonic()
        if now - self._noticed_at.get(text, -REPEAT_NOTICE_SECS) >= REPEAT_NOTICE_SECS:
            self._noticed_at[text] = now
            self._bar.write(text, file=sys.stderr)


class Interrupt:
    """Number of the signal that stopped the batch, None without one."""

    number: int | None = None


@contextmanager
def interruptible(batch: Batch) -> Iterator[Interrupt]:
    """Stop the batch at the first Ctrl-C or SIGTERM, the process at the second."""
    interrupt = Interrupt()

    def stop(number: int, frame: FrameType | None) -> None:
        if interrupt.number is not None:
            # No clean-up: the next start truncates an incomplete line.
            os._exit(128 + number)
        interrupt.number = number
        batch.stopping.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
