"""A chat in the terminal: reads questions and commands, prints answers, until Ctrl-D.

Arrow keys bring back the questions of the conversation, also of one that is continued. No file keeps them.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from chat.access.callers import Caller
from chat.errors import ChatError
from chat.management.answer_reader import AnswerReader
from chat.management.options import require_service
from chat.management.terminal import printable, printable_line
from chat.models import Conversation, Role
from chat.schemas.chat_bodies import chat_request
from chat.services import turns
from chat.services.conversations import export_markdown, get_conversation, update_conversation
from chat.services.markdown_text import quoted

PROMPT = "> "
CONTINUATION = ". "
HELP = """\
/system TEXT  set the system prompt of this conversation; without TEXT show it
/new          begin another conversation
/save FILE    write the conversation to a Markdown file
/help         show this list
A line that ends with \\ goes on in the next one. // begins a question that starts with a slash.
Ctrl-C stops the answer, Ctrl-D ends the chat.
"""


class InteractiveChat:
    """``fields`` are those of every request. Without ``store`` the messages are kept here and sent with each."""

    def __init__(
        self,
        caller: Caller,
        *,
        fields: dict[str, Any],
        system_prompt: str,
        conversation: Conversation | None,
        store: bool,
    ) -> None:
        self.caller = caller
        self.fields = fields
        self.store = store
        self.conversation = conversation
        self.system_prompt = conversation.system_prompt if conversation else system_prompt
        self.messages: list[dict[str, str]] = []
        self.saved: set[Path] = set()
        self.commands = {"help": self.help, "new": self.new, "save": self.save, "system": self.set_system_prompt}

    def run(self) -> None:
        """Read and answer until the end of the input."""
        # Its import is what gives input() line editing; not every build of Python has it.
        editor = importlib.import_module("readline") if importlib.util.find_spec("readline") else None
        if editor:
            editor.clear_history()
            for question in self.stored_questions():
                editor.add_history(question)
        self.say("A chat with the service: /help lists the commands, Ctrl-D ends it.")
        while True:
            try:
                text = self.read_text()
            except EOFError:
                self.say("")
                return
            except KeyboardInterrupt:
                self.say("")
                continue
            self.handle(text)

    def stored_questions(self) -> list[str]:
        if self.conversation is None:
            return []
        messages = self.conversation.messages.filter(role=Role.USER).order_by("position")
        return [printable_line(" ".join(text.split())) for text in messages.values_list("content", flat=True)]

    def read_text(self) -> str:
        """Return the next question or command. Raises EOFError at the end of the input."""
        text = self.read_line(PROMPT)
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{self.read_line(CONTINUATION)}"
        return text.strip()

    def read_line(self, prompt: str) -> str:
        if sys.stdout.isatty():
            return input(prompt)
        # The answers go to a file, which is no place for prompts.
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return input()

    def handle(self, text: str) -> None:
        """Run a command, or send a question; what fails is reported, and the chat goes on."""
        try:
            if text.startswith("/") and not text.startswith("//"):
                self.run_command(text)
            elif text:
                self.ask(text.removeprefix("/") if text.startswith("//") else text)
        except KeyboardInterrupt:
            self.say("stopped before the answer began")
        except asyncio.CancelledError:
            self.say("left the answer, which is stopped as soon as the service can")
        except ChatError as error:
            self.say(f"error: {error.message}")
        except CommandError as error:
            self.say(f"error: {error}")

    def run_command(self, text: str) -> None:
        name, _, argument = text[1:].partition(" ")
        command = self.commands.get(name)
        if command is None:
            raise CommandError(f"there is no command /{printable_line(name)}; /help lists them")
        command(argument.strip())

    def ask(self, question: str) -> None:
        require_service()
        turn = turns.start_turn(caller=self.caller, request=chat_request(self.body(question)))
        if turn.conversation_id and self.conversation is None:
            self.conversation = get_conversation(caller=self.caller, conversation_id=turn.conversation_id)
        reader = AnswerReader(turn, self.caller, exits=False)
        asyncio.run(reader.run())
        if not self.store and reader.text:
            self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reader.text}]

    def body(self, question: str) -> dict[str, Any]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        messages = [{"role": "user", "content": question}]
        if self.conversation:
            return {**self.fields, "conversation_id": str(self.conversation.pk), "messages": messages}
        return {**self.fields, "messages": [*system, *self.messages, *messages], "store": self.store}

    def help(self, argument: str) -> None:
        self.say(HELP.rstrip())

    def new(self, argument: str) -> None:
        self.conversation = None
        self.messages = []
        self.say("The next question begins another conversation.")

    def set_system_prompt(self, text: str) -> None:
        if not text:
            self.say(self.system_prompt or "The service's own system prompt is used.")
            return
        if self.conversation:
            update_conversation(caller=self.caller, conversation_id=self.conversation.pk, system_prompt=text)
        self.system_prompt = text
        self.say("The system prompt counts from the next question on.")

    def save(self, name: str) -> None:
        """Write the conversation; a file that this chat did not write is never replaced."""
        text = self.as_markdown()
        if not name or not text:
            raise CommandError("there is nothing to save yet" if name else "/save needs the name of a file")
        path = Path(name).expanduser().absolute()
        try:
            with path.open("w" if path in self.saved else "x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise CommandError(f"{path} was not written: {error.strerror or error}") from error
        self.saved.add(path)
        self.say(f"saved as {path}")

    def as_markdown(self) -> str:
        """Return the conversation as a page; empty for one that has not begun."""
        if self.conversation:
            return export_markdown(caller=self.caller, conversation_id=self.conversation.pk)
        names = {"user": "You", "assistant": "Gemma"}
        parts = [f"## {names[message['role']]}\n\n{quoted(message['content'])}\n" for message in self.messages]
        return "\n".join(parts)

    def say(self, text: str) -> None:
        """Print about the chat, beside the answers."""
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()
