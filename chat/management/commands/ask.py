"""`manage.py ask "..."`: one answer on the terminal, as it is made."""

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
from chat.management.terminal import AnswerPrinter
from chat.schemas.chat_bodies import chat_request
from chat.services import turns
from chat.services.conversations import conversations_of
from chat.services.turns import Turn
from chat.streaming.background import in_thread, spawn
from chat.streaming.events import WireLine, lines

INTERRUPTED = 128 + signal.SIGINT


class Command(BaseCommand):
    help = (
        "Asks the running service and prints the answer as it comes. The conversation is kept: --continue asks on. "
        "Exit status: 0 answered, 1 no whole answer, 130 stopped by Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("prompt", help='what to ask; "-" reads it from standard input')
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--conversation", metavar="ID", help="ask on in this conversation")
        which.add_argument("--continue", action="store_true", dest="go_on", help="ask on in the last conversation")
        add_request_arguments(parser)
        parser.add_argument("--no-store", action="store_false", dest="store", help="keep nothing")

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        try:
            caller = caller_of(options)
            body = request_body(options, caller)
            require_service()
            turn = turns.start_turn(caller=caller, request=chat_request(body))
            status = asyncio.run(AnswerReader(turn, caller).run())
        except KeyboardInterrupt:
            status = INTERRUPTED
        except ChatError as error:
            raise CommandError(error.message) from error
        if status:
            sys.exit(status)


class AnswerReader:
    """One answer being read; Ctrl-C stops it, a second Ctrl-C leaves without waiting for its end."""

    def __init__(self, turn: Turn, caller: Caller) -> None:
        self.turn = turn
        self.caller = caller
        self.printer = AnswerPrinter(sys.stdout, sys.stderr)
        self.interrupted = False

    async def run(self) -> int:
        """The exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.interrupt)
        try:
            last = await self.read()
        except BrokenPipeError:
            return await self.left_alone()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return self.conclude(last)

    async def read(self) -> WireLine:
        """Print line by line; the last one. Raises BrokenPipeError when nobody reads what is printed."""
        line: WireLine = {}
        # Nobody else reads this answer, and Ctrl-C stops it at once: no grace is needed.
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
            return  # it has ended: its last line is on the way

    async def left_alone(self) -> int:
        await self.cancel()
        # Python flushes stdout once more when it exits, into the pipe that is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1

    def conclude(self, last: WireLine) -> int:
        self.printer.close()
        if error := last.get("error"):
            sys.stderr.write(f"no whole answer: {error.get('code')}: {error.get('message')}\n")
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
    """The chat request's body. Raises CommandError for a prompt or conversation that is not there."""
    prompt = sys.stdin.read() if options["prompt"] == "-" else options["prompt"]
    if not prompt.strip():
        raise CommandError("the prompt is empty")
    messages = [{"role": "user", "content": prompt}]
    system = system_prompt(options)
    conversation_id = options["conversation"]
    if options["go_on"]:
        last = conversations_of(caller).order_by("-updated_at").first()
        if last is None:
            raise CommandError("there is no conversation to continue")
        conversation_id = str(last.pk)
    if conversation_id and system is not None:
        raise CommandError("--system begins a conversation; a stored one keeps its own")
    if conversation_id:
        return {**request_fields(options), "conversation_id": conversation_id, "messages": messages}
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {**request_fields(options), "messages": messages, "store": options["store"]}
