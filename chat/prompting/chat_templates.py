"""Chat formats: the template of the model file, Gemma's turns, or a plain transcript for base models.

A format encodes texts piece by piece: the opening (up to the first answer), a follow-up (from the end of one answer to
the start of the next) and the text of an answer. Scaffolding may hold control tokens, contents never: they are encoded
separately. Knows no sources, budgets or database.
"""

import copy
import hashlib
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple, Self

from django.conf import settings

from chat.prompting.jinja_sandbox import Conversation, TemplateRendering, TemplateUnusable, render
from inference.config.tokenizer import Tokenizer, get_tokenizer
from inference.engine.params import ThoughtMarks
from inference.errors import ModelUnavailable

log = logging.getLogger(__name__)


class PromptSegment(NamedTuple):
    """A piece of prompt text. Only scaffolding (``special``) may hold control tokens."""

    text: str
    special: bool


def scaffold(text: str) -> PromptSegment:
    return PromptSegment(text, True)


def content(text: str) -> PromptSegment:
    return PromptSegment(text, False)


class ChatFormat(ABC):
    """Base of the formats. ``fingerprint`` identifies tokenizer and format, for which alone ids are valid."""

    name: str
    stops: tuple[str, ...] = ()
    trim_start = False  # answers begin with a space that is no part of the text
    plain_model = False  # a base model: prompts are short and give examples, not rules
    thought: ThoughtMarks | None = None  # marks around the thoughts of generated answers

    def __init__(self, tokenizer: Tokenizer, *details: str) -> None:
        self.tokenizer = tokenizer
        parts = "\0".join((tokenizer.fingerprint, self.name, *details))
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()[:32]

    def for_request(self) -> Self:
        """Return the format with a tokenizer that encodes each long text of a request once."""
        chat_format = copy.copy(self)
        chat_format.tokenizer = self.tokenizer.for_request()
        return chat_format

    @abstractmethod
    def opening_segments(self, system: str, user: str) -> list[PromptSegment]: ...

    @abstractmethod
    def follow_up_segments(self, user: str) -> list[PromptSegment]: ...

    def opening(self, system: str, user: str, *, limit: int | None = None) -> list[int]:
        """Encode from the first token to the start of the first answer; with ``limit`` at least until there are more
        tokens."""
        return self._encode(self.opening_segments(system.strip(), user.strip()), limit)

    def follow_up(self, user: str) -> list[int]:
        """Encode from the end of an answer to the start of the next one."""
        return self._encode(self.follow_up_segments(user.strip()))

    def answer(self, text: str) -> list[int]:
        """Encode an answer that no generation of this service produced."""
        return self._encode([content(text.strip())])

    def _encode(self, segments: Sequence[PromptSegment], limit: int | None = None) -> list[int]:
        ids: list[int] = []
        for segment in segments:
            # The same limit for every segment, so that a text encoded before is found; it is only passed by more.
            if segment.text:
                ids += self.tokenizer.encode(segment.text, special=segment.special, limit=limit)
            if limit is not None and len(ids) > limit:
                break
        return ids


class GemmaFormat(ChatFormat):
    """Gemma's format: two roles, the system prompt at the start of the first user turn."""

    name = "gemma"

    def opening_segments(self, system: str, user: str) -> list[PromptSegment]:
        head = [content(f"{system}\n\n")] if system else []
        return [scaffold(f"{self.tokenizer.bos_text}<start_of_turn>user\n"), *head, *self._rest(user)]

    def follow_up_segments(self, user: str) -> list[PromptSegment]:
        return [scaffold("<end_of_turn>\n<start_of_turn>user\n"), *self._rest(user)]

    def _rest(self, user: str) -> list[PromptSegment]:
        return [content(user), scaffold("<end_of_turn>\n<start_of_turn>model\n")]


class TranscriptFormat(ChatFormat):
    """For a base model, which was not trained on turns: a dialogue as a page would print it.

    Contents begin with their space, since tokens of words include it.
    """

    name = "transcript"
    # The longer ones first: an answer before an empty line loses that line with the stop string.
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
        return self._encode([content(f" {self._escaped(text.strip())}")])

    def _rest(self, user: str) -> list[PromptSegment]:
        return [content(f" {self._escaped(user)}"), content("\nAssistant:")]

    def _escaped(self, text: str) -> str:
        """Indent a speaker's name at the start of a line within a text, so that it opens no turn."""
        # Stop strings within answers need no such care: an answer ends before it can hold one.
        return self._speaker_at_line_start.sub(" ", "\n".join(text.splitlines()))


SYSTEM, USER, ANSWER, NEXT_USER = "\ue000", "\ue001", "\ue002", "\ue003"
MARKS = (SYSTEM, USER, ANSWER, NEXT_USER)
_BETWEEN_MARKS = re.compile(f"([{''.join(MARKS)}])")


class TemplateFormat(ChatFormat):
    """The Jinja template of the model file, rendered once with marks in place of contents and split at the marks."""

    name = "template"

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        super().__init__(tokenizer, template)
        if not template:
            raise TemplateUnusable("the model file has no chat template")
        if any(mark in template for mark in MARKS):
            raise TemplateUnusable("the chat template contains characters of the private use area")
        # Four conversations show all pieces: openings with and without a system message, and a follow-up.
        system, user = {"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}
        combined = {"role": "user", "content": f"{SYSTEM}\n\n{USER}"}
        rest = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": NEXT_USER}]
        # The follow-up comes from a dialogue without system message, which some templates move before the last message.
        conversations: list[Conversation] = [[system, user], [combined], [user], [user, *rest]]
        with_system, with_combined, alone, longer = render(
            template, bos=tokenizer.bos_text, eos=tokenizer.eos_text, conversations=conversations
        )
        # Some templates refuse a system message, others drop it: both get it before the first user text.
        takes_system = _shows(with_system, SYSTEM, USER)
        self._with_system = _cut(with_system if takes_system else with_combined, SYSTEM, USER)
        self._alone = _cut(alone, USER)
        after_answer = longer.text.partition(ANSWER)[2] or longer.text
        self._follow_up = _cut(replace(longer, text=after_answer), NEXT_USER)

    def opening_segments(self, system: str, user: str) -> list[PromptSegment]:
        return _filled(self._with_system if system else self._alone, {SYSTEM: system, USER: user})

    def follow_up_segments(self, user: str) -> list[PromptSegment]:
        return _filled(self._follow_up, {NEXT_USER: user})


def _shows(rendering: TemplateRendering, *marks: str) -> bool:
    return not rendering.refusal and all(rendering.text.count(mark) == 1 for mark in marks)


def _cut(rendering: TemplateRendering, *marks: str) -> list[str]:
    """Split into scaffolding and marks, alternating."""
    if not _shows(rendering, *marks):
        raise TemplateUnusable(
            f"the chat template cannot render a plain dialogue: {rendering.refusal or 'it drops texts'}"
        )
    return _BETWEEN_MARKS.split(rendering.text)


def _filled(pieces: list[str], contents: dict[str, str]) -> list[PromptSegment]:
    return [content(contents[piece]) if piece in contents else scaffold(piece) for piece in pieces]


def choose_format(tokenizer: Tokenizer, setting: str) -> ChatFormat:
    """Choose by the setting GEMMA_CHAT_FORMAT; with ``auto`` an unusable template is logged and not used."""
    template = tokenizer.chat_template
    if setting == "template" or (setting == "auto" and template):
        try:
            return TemplateFormat(tokenizer, template or "")
        except TemplateUnusable as error:
            if setting == "template":
                raise ModelUnavailable(f"GEMMA_CHAT_FORMAT=template cannot be used: {error}") from error
            log.warning("chat template of the model file not used error=%s", error)
    marks = ("<start_of_turn>", "<end_of_turn>")
    has_gemma_turns = all(len(tokenizer.encode(mark, special=True)) == 1 for mark in marks)
    if setting == "gemma" or (setting == "auto" and tokenizer.is_instruct and has_gemma_turns):
        return GemmaFormat(tokenizer)
    return TranscriptFormat(tokenizer)


def get_format() -> ChatFormat:
    """Return the format in use, built once per tokenizer and day: templates may write the date.

    Raises ModelUnavailable.
    """
    tokenizer = get_tokenizer()
    dated = "strftime_now" in (tokenizer.chat_template or "")
    return _format_of_day(tokenizer, settings.GEMMA_CHAT_FORMAT, datetime.now().astimezone().date() if dated else None)


@lru_cache(maxsize=2)
def _format_of_day(tokenizer: Tokenizer, setting: str, day: date | None) -> ChatFormat:
    return choose_format(tokenizer, setting)
