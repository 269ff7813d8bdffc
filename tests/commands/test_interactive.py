"""`ask` without a prompt, in a pseudo-terminal: the chat, its commands, Ctrl-C and Ctrl-D."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.driver import Driver
from tests.live_stack import PROJECT

DEADLINE_SECS = 30.0
CTRL_C, CTRL_D, ARROW_UP = "\x03", "\x04", "\x1b[A"
# What the terminal shows no longer: statuses that were cleared, and how.
ESCAPES = re.compile(r"[^\n]*\r\x1b\[K|\x1b\[[?0-9;]*[A-Za-z]|\r")


class TerminalChat:
    """A command on a terminal of its own. ``shown``: what came since the last expectation; ``seen``: all of it."""

    def __init__(self, driver: Driver, *options: str, command: tuple[str, ...] = (), **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        arguments = command or ("ask", "--owner", driver.owner, *options)
        self.process = subprocess.Popen(
            [sys.executable, str(PROJECT / "manage.py"), *arguments],
            env={**driver.stack.environment, "TERM": "xterm", **environment},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=make_controlling,
        )
        os.close(theirs)
        self.shown = self.seen = ""

    def expect(self, wanted: str) -> str:
        """Wait until the terminal shows ``wanted``; return all that was shown until its end."""
        deadline = time.monotonic() + DEADLINE_SECS
        while wanted not in ESCAPES.sub("", self.shown):
            assert time.monotonic() < deadline, f"{wanted!r} is not in {self.shown!r}"
            if select.select([self.ours], [], [], 0.2)[0]:
                text = os.read(self.ours, 4096).decode(errors="replace")
                self.shown += text
                self.seen += text
        before, _, after = ESCAPES.sub("", self.shown).partition(wanted)
        self.shown = after
        return before + wanted

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def say(self, text: str, answer: str) -> None:
        """Type a line, and wait for what is printed and for the next prompt."""
        self.type(f"{text}\n")
        self.expect(answer)
        self.expect("\n> ")

    def end(self) -> int:
        self.type(CTRL_D)
        return self.process.wait(DEADLINE_SECS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)


def make_controlling() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def chat(driver: Driver) -> Iterator[TerminalChat]:
    terminal = TerminalChat(driver)
    terminal.expect("> ")
    yield terminal
    terminal.close()


def titles(driver: Driver) -> list[tuple[str, str]]:
    return driver.table("SELECT title, system_prompt FROM chat_conversation WHERE owner = ? ORDER BY created_at")


def test_a_conversation_with_its_commands(chat: TerminalChat, driver: Driver, tmp_path: Path) -> None:
    file = tmp_path / "kept.md"
    chat.say(f"/save {file}", "nothing to save yet")
    chat.say("/system Be terse.", "from the next question on")
    chat.say("[[say: first]]", "\nfirst")
    chat.say("[[say: second \\\nthird]]", "third")
    chat.say(f"/save {file}", "saved as")
    assert "> [[say: first]]\n\n## Gemma\n\n> first" in file.read_text(encoding="utf-8")
    chat.say(f"/save {tmp_path}", "was not written")
    chat.say("/nonsense", "there is no command /nonsense")
    chat.say("//help", "You said: /help")
    chat.type(f"{ARROW_UP}{ARROW_UP}")
    chat.expect("nonsense")
    chat.type(CTRL_C)
    chat.expect("\n> ")
    chat.say("/new", "another conversation")
    chat.say("[[say: apart]]", "\napart")
    assert chat.end() == 0
    assert titles(driver) == [("[[say: first]]", "Be terse."), ("[[say: apart]]", "Be terse.")]
    # The questions of a conversation that is continued are its history.
    again = TerminalChat(driver, "--continue")
    try:
        again.expect("> ")
        again.say(ARROW_UP, "apart]]\napart")
        assert len(titles(driver)) == 2
    finally:
        again.close()


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(chat: TerminalChat, driver: Driver) -> None:
    chat.type("[[delay: 50]] [[count: 1000]]\n")
    chat.expect("3 4 ")
    chat.type(CTRL_C)
    chat.expect("\n> ")
    chat.say("[[say: going on]]", "\ngoing on")
    assert driver.statuses() == ["interrupted", "complete"]
    assert len(titles(driver)) == 1
    chat.type("[[delay: 50]] [[count: 1000]]\n")
    chat.expect("2 ")
    worker = driver.stack.process("gemma-worker")
    worker.suspend()
    try:
        chat.type(CTRL_C)
        time.sleep(0.3)
        chat.type(CTRL_C)
        chat.expect("left the answer")
        chat.expect("> ")
    finally:
        worker.resume()


def test_nothing_is_stored_with_no_store(driver: Driver, tmp_path: Path) -> None:
    chat = TerminalChat(driver, "--no-store", "--system", "Be terse.")
    try:
        chat.expect("> ")
        chat.say("[[say: first]]", "\nfirst")
        chat.say("[[say: second]]", "\nsecond")
        chat.say(f"/save {tmp_path / 'chat.md'}", "saved as")
        assert chat.end() == 0
    finally:
        chat.close()
    assert titles(driver) == []
    counts = driver.rows("n_prompt_tokens")
    assert counts[1][0] > counts[0][0], "the second prompt holds the first turn"
    assert (tmp_path / "chat.md").read_text(encoding="utf-8").count("## ") == 4
