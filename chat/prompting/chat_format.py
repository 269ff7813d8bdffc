"""Chat formats: Gemma's turns, or a plain transcript for base models; ``template_format`` has the model file's own.

A format encodes texts piece by piece: the first turn, later turns (each from the end of one answer to where the next
begins) and past answers. Scaffolding may hold control tokens, contents never: they are encoded
separately. Knows no sources, budgets or database.
"""

import copy
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple, Self

from inference.config.tokenizer import Tokenizer
from inference.engine.params import ThoughtMarks


class PromptSegment(NamedTuple):
    """A piece of prompt text. Only scaffolding (``special``) may hold control tokens."""

    text: str
    special: bool


def scaffold(text: str) -> PromptSegment:
    return PromptSegment(text, True)


def content(text: str) -> PromptSegment:
    return PromptSegment(text, False)


class PastTurn(NamedTuple):
    """A user text with the answer to it, and the thought before that."""

    user: str
    answer: str
    thought: str = ""


class ChatFormat(ABC):
    """Base of the formats. ``fingerprint`` identifies tokenizer and format, for which alone ids are valid.

    Tokens of a user turn end where the prompt of an answer and the past answer begin to differ; ``generation_ids``
    are the rest of the former. ``generated_key`` is the key of an answer's own tokens: ``fingerprint`` where those
    always are what a later prompt holds.
    """

    name: str
    stops: tuple[str, ...] = ()
    trim_start = False  # answers begin with a space that is no part of the text
    plain_model = False  # a base model: prompts are short and give examples, not rules
    thought: ThoughtMarks | None = None  # marks around the thoughts of generated answers
    generation_ids: tuple[int, ...] = ()
    problem: str = ""  # why the model file's template is not used

    def __init__(self, tokenizer: Tokenizer, *details: str) -> None:
        self.tokenizer = tokenizer
        parts = "\0".join((tokenizer.fingerprint, self.name, *details))
        self.fingerprint = hashlib.sha256(parts.encode()).hexdigest()[:32]
        self.generated_key = self.fingerprint
        self._own_openings: dict[str, list[int]] = {}  # of the installation's few system prompts

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
        return [*self.first_turn(system, user, limit=limit), *self.generation_ids]

    def n_shared(self, ids: Sequence[int], system: str) -> int:
        """Count the leading tokens of a prompt that a prompt of ``system`` alone has too; ``system`` is a text of the
        installation, never of a client."""
        if system not in self._own_openings:
            self._own_openings[system] = self.first_turn(system, "")
        pairs = zip(ids, self._own_openings[system], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def follow_up(self, user: str) -> list[int]:
        """Encode from the end of an answer to the start of the next one."""
        return [*self.later_turn(user), *self.generation_ids]

    def first_turn(self, system: str, user: str, *, limit: int | None = None) -> list[int]:
        """Encode from the first token to the end of the first user turn."""
        return self._encode(self.opening_segments(system.strip(), user.strip()), limit)

    def later_turn(self, user: str, *, limit: int | None = None) -> list[int]:
        """Encode from the end of an answer to the end of the next user turn; ``limit`` as in ``opening``."""
        return self._encode(self.follow_up_segments(user.strip()), limit)

    def answer(self, text: str, thought: str = "", *, limit: int | None = None) -> list[int]:
        """Encode a past answer behind its user turn; ``limit`` as in ``opening``."""
        del thought  # formats of models that do not think have no place for it
        return self._encode([content(text.strip())], limit)

    def generated_answer(self, ids: Sequence[int], text: str, thought: str) -> list[int]:
        """Encode a past answer of a generation: its own tokens, if they are what the format has for its text."""
        return list(ids) or self.answer(text, thought)

    def is_piecewise(self, *, has_system: bool, has_thoughts: bool, has_results: bool = False) -> bool:
        """Return whether a dialogue is its turns one after the other; else ``whole`` renders it. ``has_results``: of
        tools."""
        del has_system, has_thoughts, has_results
        return True

    def whole(self, system: str, past: Sequence[PastTurn], user: str, *, limit: int | None = None) -> list[int]:
        """Encode a dialogue to the start of the next answer, whatever the format does with its parts; ``limit`` as in
        ``opening``."""
        raise NotImplementedError(f"the format {self.name} is piecewise")

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
    """The format of base models, which are not trained on turns: a dialogue as a page would print it.

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

    def answer(self, text: str, thought: str = "", *, limit: int | None = None) -> list[int]:
        return self._encode([content(f" {self._escaped(text.strip())}")], limit)

    def _rest(self, user: str) -> list[PromptSegment]:
        return [content(f" {self._escaped(user)}"), content("\nAssistant:")]

    def _escaped(self, text: str) -> str:
        """Indent a speaker's name at the start of a line within a text, so that it opens no turn."""
        # Stop strings within answers need no such care: an answer ends before it can hold one.
        return self._speaker_at_line_start.sub(" ", "\n".join(text.splitlines()))
