"""Answers of the fake model, derived from the prompt's tokens.

The last user text in the prompt decides:
    [[say: TEXT]]   answers TEXT
    [[count: N]]    answers "1 2 3 ... N "
    [[delay: MS]]   every step takes that long; also together with one of the above
    [[abort]]       the process aborts in the prefill
    [[hang]]        the step never ends
    anything else   answers "You said: <last line of it>"
User text is Gemma's last user turn, else the text between "User:" and "Assistant:", else the whole prompt.
"""

import re
from dataclasses import dataclass

from inference.engine.backends.fake import END_OF_TURN, EOS, FIRST_BYTE, START_OF_TURN

# A replayed answer is looked for at the end of a raw prompt, this far back.
MAX_REPLAYED = 4096

_SAY = re.compile(rb"\[\[say: (.*?)\]\]", re.DOTALL)
_COUNT = re.compile(rb"\[\[count: (\d{1,6})\]\]")
_DELAY = re.compile(rb"\[\[delay: (\d{1,6})\]\]")
_TRANSCRIPT = re.compile(rb"(?:.*\n|^)User:(.*?)\nAssistant:", re.DOTALL)
_ANY = re.compile(rb"\[\[\w+(?:: .*?)?\]\] ?", re.DOTALL)


@dataclass(frozen=True)
class Script:
    """The answer and the number of tokens in front of it."""

    answer: bytes
    n_prompt: int
    end_token: int = EOS
    delay_ms: float = 0.0

    def token_after(self, n_tokens: int) -> int:
        """Return the token that follows the first ``n_tokens`` of prompt and answer."""
        position = n_tokens - self.n_prompt
        return FIRST_BYTE + self.answer[position] if position < len(self.answer) else self.end_token


class _Damaged(Script):
    """Answer of a slot trimmed beyond its window."""

    def token_after(self, n_tokens: int) -> int:
        return FIRST_BYTE + ord("?")


DAMAGED: Script = _Damaged(b"", 0)


def write_script(tokens: list[int]) -> Script:
    """Return the script of a sequence; ``tokens`` are its prompt and, after a replay, the begun answer."""
    if START_OF_TURN in tokens:
        last_turn = len(tokens) - 1 - tokens[::-1].index(START_OF_TURN)
        n_prompt = min(len(tokens), last_turn + 1 + len(b"model\n"))
        return Script(_answer(_user_text(tokens)), n_prompt, END_OF_TURN, delay_ms(tokens))
    # Without turns nothing marks the end of the prompt: it is the first place where the rest of the text begins the
    # answer to the text before it.
    text = _bytes(tokens)
    cuts = range(max(1, len(text) - MAX_REPLAYED), len(text))
    cut = next((cut for cut in cuts if _answer(_raw_user_text(text[:cut])).startswith(text[cut:])), len(text))
    n_control = len(tokens) - len(text)
    return Script(_answer(_raw_user_text(text[:cut])), n_control + cut, EOS, delay_ms(tokens))


def delay_ms(tokens: list[int]) -> float:
    """Return the ms for each step in the user text known so far."""
    match = _DELAY.search(_user_text(tokens))
    return float(match[1]) if match else 0.0


def wants_abort(tokens: list[int]) -> bool:
    return b"[[abort]]" in _user_text(tokens)


def wants_hang(tokens: list[int]) -> bool:
    return b"[[hang]]" in _user_text(tokens)


def _answer(user_text: bytes) -> bytes:
    if match := _SAY.search(user_text):
        return match[1]
    if match := _COUNT.search(user_text):
        return b"".join(b"%d " % number for number in range(1, int(match[1]) + 1))
    lines = [line.strip() for line in _ANY.sub(b"", user_text).splitlines() if line.strip()]
    return b"You said: " + (lines[-1] if lines else b"")


def _user_text(tokens: list[int]) -> bytes:
    """Return the last user turn, closed or not; without turns the text of a raw prompt."""
    if START_OF_TURN not in tokens:
        return _raw_user_text(_bytes(tokens))
    turns = _bytes(tokens, turn_mark=b"\x00").split(b"\x00")
    users = [turn for turn in turns if turn.startswith(b"user\n")]
    return users[-1].removeprefix(b"user\n") if users else b""


def _raw_user_text(text: bytes) -> bytes:
    match = _TRANSCRIPT.match(text)
    return match[1] if match else text


def _bytes(tokens: list[int], turn_mark: bytes = b"") -> bytes:
    """Return the bytes of tokens; a turn's control tokens become ``turn_mark``."""
    marks = {START_OF_TURN: turn_mark, END_OF_TURN: turn_mark}
    return b"".join(bytes([token - FIRST_BYTE]) if token >= FIRST_BYTE else marks.get(token, b"") for token in tokens)
