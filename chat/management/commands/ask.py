"""`manage.py ask "..."`: streams one answer to the terminal."""

import argparse
import asyncio
import os
import signal
import sys
from contextlib import aclosing
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.access.callers import Caller
from chat.errors import ChatError
from chat.management.options import add_request_arguments, caller_of, request_fields, require_service, system_prompt
from chat.management.terminal import AnswerPrinter, read_stdin, replace_unencodable
from chat.schemas.chat_bodies import chat_request
from chat.services import turns
from chat.services.conversations import conversations_of
from chat.services.turns import Turn
from chat.streaming.background import in_thread, spawn
from chat.streaming.events import WireLine, lines

INTERRUPTED = 128 + signal.SIGINT


class Command(BaseCommand):
    help = (
        "Sends a prompt to the running service and prints the answer as it is generated. The conversation is stored, "
        "and --continue continues it. Exit status: 0 answered, 1 no complete answer, 130 stopped by Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prompt", help='the prompt; "-" reads it from standard input')
        conversation = parser.add_mutually_exclusive_group()
        conversation.add_argument("--conversation", metavar="ID", help="continue this conversation")
        conversation.add_argument(
            "--continue", action="store_true", dest="continue_last", help="continue the last conversation"
        )
        add_request_arguments(parser)
        parser.add_argument("--no-store", action="store_false", dest="store", help="store nothing")

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        replace_unencodable()
        try:
            caller = caller_of(options)
            body = request_body(options, caller)
            require_service()
            turn = turns.start_turn(caller=caller, request=chat_request(body))
            status = asyncio.run(AnswerReader(turn, caller).run())
        except KeyboardInterrupt:
            self.stderr.write("stopped before the answer began")
            status = INTERRUPTED
        except ChatError as error:
            raise CommandError(error.message) from error
        if status:
            sys.exit(status)


class AnswerReader:
    """Reads and prints one answer; Ctrl-C cancels it, a second Ctrl-C exits without waiting for its end."""

    def __init__(self, turn: Turn, caller: Caller) -> None:
        self.turn = turn
        self.caller = caller
        self.printer = AnswerPrinter(sys.stdout, sys.stderr)
        self.interrupted = False

    async def run(self) -> int:
        """Return the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        try:
            last = await self.read()
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
                self.printer.line(line)
        return line

    def interrupt(self) -> None:
        if self.interrupted:
            os._exit(INTERRUPTED)
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
        self.printer.summary({**last, "conversation_id": self.turn.conversation_id})
        if self.interrupted:
            return INTERRUPTED
        if last.get("finish_reason") == "cancelled" or not last.get("done"):
            sys.stderr.write("the answer was stopped before its end\n")
            return 1
        return 0


def request_body(options: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Return the body of the chat request. Raises CommandError for a missing prompt or conversation."""
    prompt = read_stdin() if options["prompt"] == "-" else options["prompt"]
    if not prompt.strip():
        raise CommandError("the prompt is empty")
    messages = [{"role": "user", "content": prompt}]
    system = system_prompt(options)
    conversation_id = options["conversation"]
    if options["continue_last"]:
        last = conversations_of(caller).order_by("-updated_at").first()
        if last is None:
            raise CommandError("there is no conversation to continue")
        conversation_id = str(last.pk)
    if conversation_id and system is not None:
        raise CommandError("--system starts a conversation; a stored one keeps its own")
    if conversation_id:
        return {**request_fields(options), "conversation_id": conversation_id, "messages": messages}
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {**request_fields(options), "messages": messages, "store": options["store"]}
