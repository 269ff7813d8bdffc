"""How a conversation is written for a model: the file's own template, Gemma's turns, or a plain transcript.

A format turns texts into token ids piece by piece: the opening (everything up to the first answer), a follow-up
(from the end of one answer to the beginning of the next) and the text of an answer. Scaffolding may contain
control tokens, contents never: they are encoded apart. Knows no memories, budgets or database.
"""

import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings

from chat.prompting.jinja_sandbox import Conversation, TemplateRendering, TemplateUnusable, render
from inference.config.tokenizer import Tokenizer, get_tokenizer
from inference.errors import ModelUnavailable

log = logging.getLogger(__name__)


class PromptSegment(NamedTuple):
    """A stretch of prompt text. Only scaffolding (``special``) may name control tokens."""

    text: str
    special: bool


def scaffold(text: str) -> PromptSegment:
    return PromptSegment(text, True)


def content(text: str) -> PromptSegment:
    return PromptSegment(text, False)


class ChatFormat(ABC):
    """Base of the three. ``fingerprint`` names tokenizer and format: ids made under one are valid under it alone."""

    name: str
    stops: tuple[str, ...] = ()
    trim_start = False  # answers begin with a space that is not text
    plain_model = False  # no instruct model: prompts are kept short and show rather than tell

    def __init__(self, tokenizer: Tokenizer, *details: str) -> None:
        self.tokenizer = tokenizer
        parts = "\0".join((tokenizer.fingerprint, self.name, *details))
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()[:32]

    @abstractmethod
    def opening_segments(self, system: str, user: str) -> list[PromptSegment]: ...

    @abstractmethod
    def follow_up_segments(self, user: str) -> list[PromptSegment]: ...

    def opening(self, system: str, user: str) -> list[int]:
        """From the first token to where the first answer begins."""
        return self._encode(self.opening_segments(system.strip(), user.strip()))

    def follow_up(self, user: str) -> list[int]:
        """From the end of an answer to where the next one begins."""
        return self._encode(self.follow_up_segments(user.strip()))

    def answer(self, text: str) -> list[int]:
        """An answer that was not generated here."""
        return self._encode([content(text.strip())])

    def _encode(self, segments: Sequence[PromptSegment]) -> list[int]:
        ids: list[int] = []
        for segment in segments:
            if segment.text:
                ids += self.tokenizer.encode(segment.text, special=segment.special)
        return ids


class GemmaFormat(ChatFormat):
    """Gemma's own: two roles, the system text at the head of the first user turn."""

    name = "gemma"

    def opening_segments(self, system: str, user: str) -> list[PromptSegment]:
        head = [content(f"{system}\n\n")] if system else []
        return [scaffold(f"{self.tokenizer.bos_text}<start_of_turn>user\n"), *head, *self._rest(user)]

    def follow_up_segments(self, user: str) -> list[PromptSegment]:
        return [scaffold("<end_of_turn>\n<start_of_turn>user\n"), *self._rest(user)]

    def _rest(self, user: str) -> list[PromptSegment]:
        return [content(user), scaffold("<end_of_turn>\n<start_of_turn>model\n")]


class TranscriptFormat(ChatFormat):
    """For a base model, which knows no turns: a dialogue as it may stand on a page.

    Contents begin with their space, since that is how words are cut into tokens.
    """

    name = "transcript"
    # The longer ones first in the text: an answer before an empty line loses that line with the stop.
    stops = ("\n\nUser:", "\n\nAssistant:", "\nUser:", "\nAssistant:")
    trim_start = True
    plain_model = True

    _speaker_at_line_start = re.compile(r"^(?=(?:User|Assistant)[^\S\n]*:)", re.MULTILINE | re.IGNORECASE)

    def opening_segments(self, system: str, user: str) -> list[PromptSegment]:
        head = [content(f"{system}\n\n")] if system else []
        return [scaffold(self.tokenizer.bos_text), *head, content("User:"), *self._rest(user)]

    def follow_up_segments(self, user: str) -> list[PromptSegment]:
        return [content("\n\nUser:"), *self._rest(user)]

    def answer(self, text: str) -> list[int]:
        return self._encode([content(f" {self._defused(text.strip())}")])

    def _rest(self, user: str) -> list[PromptSegment]:
        return [content(f" {self._defused(user)}"), content("\nAssistant:")]

    def _defused(self, text: str) -> str:
        """A speaker's mark at the start of a line within a text is indented: it opens no turn."""
        # The stop strings need no such care in answers: an answer ends before it can contain one.
        return self._speaker_at_line_start.sub(" ", "\n".join(text.splitlines()))


SYSTEM, USER, ANSWER, NEXT_USER = "\ue000", "\ue001", "\ue002", "\ue003"
MARKS = (SYSTEM, USER, ANSWER, NEXT_USER)
_BETWEEN_MARKS = re.compile(f"([{''.join(MARKS)}])")


class TemplateFormat(ChatFormat):
    """The Jinja template of the model file, rendered once with marks in place of contents and cut at the marks."""

    name = "template"

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        super().__init__(tokenizer, template)
        if not template:
            raise TemplateUnusable("the model file has no chat template")
        if any(mark in template for mark in MARKS):
            raise TemplateUnusable("the chat template contains characters of the private use area")
        # Four conversations tell all: with and without a system text, and what stands between two answers.
        system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}
        combined = {"role": "user", "content": f"{SYSTEM}\n\n{USER}"}
        more = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": NEXT_USER}]
        # The follow-up is taken from a dialogue without system text, which some templates put before the last message.
        conversations: list[Conversation] = [[system, user], [combined], [user], [user, *more]]
        with_system, with_combined, alone, longer = render(
            template, bos=tokenizer.bos_text, eos=tokenizer.eos_text, conversations=conversations
        )
        # Some templates refuse a system message, others drop it in silence: both get it before the first user text.
        takes_system = _shows(with_system, SYSTEM, USER)
        self._with_system = _cut(with_system if takes_system else with_combined, SYSTEM, USER)
        self._alone = _cut(alone, USER)
        self._follow_up = _cut(_after_answer(longer), NEXT_USER)

    def opening_segments(self, system: str, user: str) -> list[PromptSegment]:
        return _filled(self._with_system if system else self._alone, {SYSTEM: system, USER: user})

    def follow_up_segments(self, user: str) -> list[PromptSegment]:
        return _filled(self._follow_up, {NEXT_USER: user})


def _shows(rendering: TemplateRendering, *marks: str) -> bool:
    return not rendering.refusal and all(rendering.text.count(mark) == 1 for mark in marks)


def _cut(rendering: TemplateRendering, *marks: str) -> list[str]:
    """Scaffolding and marks in turn."""
    if not _shows(rendering, *marks):
        raise TemplateUnusable(
            f"the chat template cannot write a plain dialogue: {rendering.refusal or 'texts are lost'}"
        )
    return _BETWEEN_MARKS.split(rendering.text)


def _after_answer(rendering: TemplateRendering) -> TemplateRendering:
    before, mark, after = rendering.text.partition(ANSWER)
    return TemplateRendering(text=after if mark else before, refusal=rendering.refusal)


def _filled(pieces: list[str], contents: dict[str, str]) -> list[PromptSegment]:
    return [content(contents[piece]) if piece in contents else scaffold(piece) for piece in pieces]


def choose_format(tokenizer: Tokenizer, wanted: str) -> ChatFormat:
    """``wanted`` is GEMMA_CHAT_FORMAT. With ``auto`` an unusable template is said and passed over."""
    template = tokenizer.chat_template
    if wanted == "template" or (wanted == "auto" and template):
        try:
            return TemplateFormat(tokenizer, template or "")
        except TemplateUnusable as error:
            if wanted == "template":
                raise ModelUnavailable(f"GEMMA_CHAT_FORMAT=template cannot be followed: {error}") from error
            log.warning("The model file's chat template is not used: %s", error)
    if wanted == "gemma" or (wanted == "auto" and tokenizer.is_instruct and _knows_gemma_turns(tokenizer)):
        return GemmaFormat(tokenizer)
    return TranscriptFormat(tokenizer)


def _knows_gemma_turns(tokenizer: Tokenizer) -> bool:
    return all(len(tokenizer.encode(mark, special=True)) == 1 for mark in ("<start_of_turn>", "<end_of_turn>"))


def get_format() -> ChatFormat:
    """The format in use, made once per tokenizer and day: templates may write the date. Raises ModelUnavailable."""
    tokenizer = get_tokenizer()
    dated = "strftime_now" in (tokenizer.chat_template or "")
    return _format_of_day(tokenizer, settings.GEMMA_CHAT_FORMAT, datetime.now().astimezone().date() if dated else None)


@lru_cache(maxsize=2)
def _format_of_day(tokenizer: Tokenizer, wanted: str, day: date | None) -> ChatFormat:
    return choose_format(tokenizer, wanted)
