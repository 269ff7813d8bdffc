"""`manage.py ask "..."`: streams one answer to the terminal; without a prompt it is a chat."""

import argparse
import asyncio
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from chat.access.callers import Caller
from chat.errors import ChatError
from chat.management.answer_reader import INTERRUPTED, AnswerReader
from chat.management.interactive import InteractiveChat
from chat.management.options import add_request_arguments, caller_of, request_fields, require_service, system_prompt
from chat.management.terminal import read_stdin
from chat.models import Conversation
from chat.schemas.chat_bodies import chat_request
from chat.schemas.identifiers import existing_id
from chat.services import turns
from chat.services.conversations import conversations_of, get_conversation


class Command(BaseCommand):
    requires_system_checks = ()  # the running service has made them, and they import every view
    help = (
        "Sends a prompt to the running service and prints the answer as it is generated. The conversation is stored, "
        "and --continue continues it. Without a prompt, in a terminal, it is a chat: /help lists its commands. "
        "Exit status: 0 answered, 1 no complete answer, 130 stopped by Ctrl-C."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "prompt", nargs="?", help='the prompt; "-" reads it from standard input; none begins a chat in the terminal'
        )
        conversation = parser.add_mutually_exclusive_group()
        conversation.add_argument("--conversation", metavar="ID", help="continue this conversation")
        conversation.add_argument(
            "--continue", action="store_true", dest="continue_last", help="continue the last conversation"
        )
        add_request_arguments(parser)
        parser.add_argument("--no-store", action="store_false", dest="store", help="store nothing")

    def handle(self, *args: object, **options: Any) -> None:  # noqa: ANN401  argparse's values
        try:
            caller = caller_of(options)
            if options["prompt"] is None and sys.stdin is not None and sys.stdin.isatty():
                status = chat(options, caller)
            else:
                status = answer_once(options, caller)
        except KeyboardInterrupt:
            self.stderr.write("stopped before the answer began")
            status = INTERRUPTED
        except ChatError as error:
            raise CommandError(error.message) from error
        if status:
            sys.exit(status)


def answer_once(options: dict[str, Any], caller: Caller) -> int:
    """Return the exit status."""
    body = request_body(options, caller)
    require_service()
    turn = turns.start_turn(caller=caller, request=chat_request(body))
    return asyncio.run(AnswerReader(turn, caller).run())


def chat(options: dict[str, Any], caller: Caller) -> int:
    conversation = stored_conversation(options, caller)
    require_service()
    InteractiveChat(
        caller,
        fields=request_fields(options),
        system_prompt=system_prompt(options) or "",
        conversation=conversation,
        store=options["store"],
    ).run()
    return 0


def request_body(options: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Return the body of the chat request. Raises CommandError for a missing prompt or conversation."""
    prompt = read_stdin() if options["prompt"] in (None, "-") else options["prompt"]
    if not prompt.strip():
        raise CommandError("the prompt is empty")
    messages = [{"role": "user", "content": prompt}]
    conversation = stored_conversation(options, caller)
    if conversation:
        return {**request_fields(options), "conversation_id": str(conversation.pk), "messages": messages}
    system = system_prompt(options)
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {**request_fields(options), "messages": messages, "store": options["store"]}


def stored_conversation(options: dict[str, Any], caller: Caller) -> Conversation | None:
    """Return the conversation to continue, None for a new one. Raises CommandError, NotFound."""
    if options["continue_last"]:
        conversation = conversations_of(caller).order_by("-updated_at").first()
        if conversation is None:
            raise CommandError("there is no conversation to continue")
    elif options["conversation"]:
        conversation_id = existing_id(options["conversation"], field="conversation_id", noun="conversation")
        conversation = get_conversation(caller=caller, conversation_id=conversation_id) if conversation_id else None
    else:
        conversation = None
    if conversation is None:
        return None
    if system_prompt(options) is not None:
        raise CommandError("--system starts a conversation; a stored one keeps its own")
    return conversation
