"""`manage.py batch_prompts IN OUT`: the command line around ``chat.batch``."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from setproctitle import setproctitle

from chat.access.callers import Caller
from chat.batch.errors import BatchError
from chat.batch.inputs import BatchInput, BatchOptions, LineFailure, PromptFormat
from chat.batch.outputs import BatchOutput
from chat.batch.runner import Batch, cancel_run
from chat.errors import ChatError
from chat.management.options import add_request_arguments, caller_of, request_fields, require_service, system_prompt
from chat.management.progress import bar

FAILURES_SHOWN = 20
SAID_AGAIN_SECS = 30.0


class Command(BaseCommand):
    help = (
        "Answers every prompt of the file IN and appends the answers to the file OUT, one JSON object a line, as they "
        "come. Started again after Ctrl-C, a kill or a power cut, it goes on where it was. It runs at batch priority: "
        "people who chat meanwhile are served first. Exit status: 0 all lines answered, 1 some failed or it cannot "
        "run, 130 stopped by Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "input",
            type=Path,
            metavar="IN",
            help='one prompt a line: JSON objects with "prompt" or "messages" and, if wanted, "id", "system" and any '
            "option of POST /chat; or plain text",
        )
        parser.add_argument("output", type=Path, metavar="OUT", help="file for the answers; one process at a time")
        parser.add_argument(
            "--format", choices=list(PromptFormat), default=PromptFormat.AUTO, help="of IN; auto looks at it"
        )
        parser.add_argument(
            "--concurrency",
            type=int,
            default=settings.GEMMA_PARALLEL * 2,
            help="how many prompts the service has at a time (twice GEMMA_PARALLEL)",
        )
        add_request_arguments(parser)
        parser.add_argument("--store", action="store_true", help="keep a conversation for each prompt")
        parser.add_argument("--restart", action="store_true", help="throw away OUT and begin anew")
        parser.add_argument(
            "--patience",
            type=float,
            default=120.0,
            metavar="SECS",
            help="how long to wait for a service that stops meanwhile (120)",
        )

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        setproctitle("gemma-batch")
        if options["concurrency"] < 1:
            raise CommandError("--concurrency must be at least 1")
        try:
            self.run_batch(options)
        except KeyboardInterrupt:
            # Before the first prompt was asked; later ones are caught by ``interruptible``.
            sys.exit(128 + signal.SIGINT)
        except BatchError as error:
            raise CommandError(str(error)) from error
        except ChatError as error:
            raise CommandError(f"{error.code}: {error.message}") from error

    def run_batch(self, options: dict[str, Any]) -> None:
        caller = caller_of(options)
        fields = {**request_fields(options), "store": options["store"]}
        asked = BatchOptions(fields=fields, system=system_prompt(options), owner=caller.key)
        source = BatchInput(options["input"], PromptFormat(options["format"]), asked, settings.REQUEST_MAX_BYTES)
        if options["output"].exists() and options["output"].samefile(options["input"]):
            raise CommandError("IN and OUT are the same file")
        require_service()
        with BatchOutput(options["output"]) as output:
            if options["restart"]:
                self.give_up_former_run(output)
            output.load()
            output.check_options(asked)
            n_prompts = output.check_input(source)
            batch = Batch(
                caller=caller,
                source=source,
                output=output,
                run=output.begin(asked),
                concurrency=options["concurrency"],
                patience_secs=options["patience"],
            )
            output.forget_failures()
            self.work(batch, output, n_prompts)

    def work(self, batch: Batch, output: BatchOutput, n_prompts: int) -> None:
        with BatchProgressBar(n_prompts, output.done.count) as progress, interruptible(batch) as interrupt:
            batch.run(progress)
            if batch.stopping.is_set():
                progress.say("stopping; press Ctrl-C again to leave at once")
                batch.cancel()
        if interrupt.number is not None:
            self.stderr.write(f"{output.done.count} of {n_prompts} lines answered. Start again to go on.")
            sys.exit(128 + interrupt.number)
        output.finish(batch.n_failed)
        if batch.n_failed:
            self.report(progress.failures, batch.n_failed, output)
            sys.exit(1)
        self.stderr.write(f"All {n_prompts} lines answered.")

    def report(self, failures: list[LineFailure], n_failed: int, output: BatchOutput) -> None:
        self.stderr.write(f"{n_failed} lines failed:")
        for failure in failures:
            self.stderr.write(f"  line {failure.line}: {failure.code}: {failure.message}")
        if n_failed > len(failures):
            self.stderr.write(f"  and {n_failed - len(failures)} more")
        self.stderr.write(f"All of them are in {output.failed_path}. Start again to try them again.")

    def give_up_former_run(self, output: BatchOutput) -> None:
        if state := output.state():
            cancel_run(state.run, Caller(state.options["owner"]))
        output.wipe()


class BatchProgressBar:
    """The bar, the first failures, and what is worth saying, on stderr; OUT alone has the answers."""

    def __init__(self, n_prompts: int, n_done: int) -> None:
        self.failures: list[LineFailure] = []
        self._n_failed = 0
        self._n_tokens = 0
        self._said: dict[str, float] = {}
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

    def say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._said.get(text, -SAID_AGAIN_SECS) >= SAID_AGAIN_SECS:
            self._said[text] = now
            self._bar.write(text, file=sys.stderr)


class Interrupt:
    """Which signal asked to stop; None: none did."""

    number: int | None = None


@contextmanager
def interruptible(batch: Batch) -> Iterator[Interrupt]:
    """The first Ctrl-C (or SIGTERM) stops the batch, the second one the process."""
    interrupt = Interrupt()

    def stop(number: int, frame: FrameType | None) -> None:
        if interrupt.number is not None:
            # Nothing to tidy up: a half-written line is cut off by the next start.
            os._exit(128 + number)
        interrupt.number = number
        batch.stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
