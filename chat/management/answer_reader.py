"""Output of one answer in the terminal: printed as it comes, cancelled by Ctrl-C."""

import asyncio
import os
import signal
import sys
from contextlib import aclosing

from chat.access.callers import Caller
from chat.errors import ChatError
from chat.management.terminal import AnswerPrinter
from chat.services import turns
from chat.services.turns import Turn
from chat.streaming.background import in_thread, spawn
from chat.streaming.events import WireLine, lines

INTERRUPTED = 128 + signal.SIGINT


class AnswerReader:
    """Reads and prints one answer; Ctrl-C cancels it, a second Ctrl-C does not wait for its end: with ``exits`` the
    process ends, else ``run`` raises CancelledError."""

    def __init__(self, turn: Turn, caller: Caller, *, exits: bool = True) -> None:
        self.turn = turn
        self.caller = caller
        self.exits = exits
        self.text = ""
        self.printer = AnswerPrinter(sys.stdout, sys.stderr)
        self.interrupted = False

    async def run(self) -> int:
        """Return the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        self.reading = asyncio.create_task(self.read())
        try:
            last = await self.reading
        except OSError as error:
            return await self.output_failed(error)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return self.conclude(last)

    async def read(self) -> WireLine:
        """Print the answer and return its last line. Raises OSError when standard output cannot be written."""
        line: WireLine = {}
        # This is the only reader, and Ctrl-C cancels at once, so no grace period is needed.
        async with aclosing(lines(self.turn, caller=self.caller, stops=False)) as source:
            async for line in source:
                self.text += line.get("token") or ""
                self.printer.line(line)
        return line

    def interrupt(self) -> None:
        if self.interrupted and self.exits:
            os._exit(INTERRUPTED)
        if self.interrupted:
            self.reading.cancel()
            return
        self.interrupted = True
        spawn(self.cancel())

    async def cancel(self) -> None:
        try:
            await in_thread(turns.cancel, caller=self.caller, generation_id=self.turn.generation_id)
        except ChatError:
            return  # it has ended; its last line follows

    async def output_failed(self, error: OSError) -> int:
        await self.cancel()
        # Python flushes stdout once more at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"cannot write the answer: {error.strerror or error}\n")
        return 1

    def conclude(self, last: WireLine) -> int:
        self.printer.close()
        if error := last.get("error"):
            sys.stderr.write(f"no complete answer: {error.get('code')}: {error.get('message')}\n")
            return INTERRUPTED if self.interrupted else 1
        self.printer.sources(last.get("sources") or [])
        if rag_error := last.get("rag_error"):
            sys.stderr.write(f"no memories were searched: {rag_error}\n")
        self.printer.summary({**last, "conversation_id": self.turn.conversation_id if self.exits else None})
        if self.interrupted:
            return INTERRUPTED
        if last.get("finish_reason") == "cancelled" or not last.get("done"):
            sys.stderr.write("the answer was stopped before its end\n")
            return 1
        return 0
