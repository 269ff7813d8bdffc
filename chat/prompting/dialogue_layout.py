"""The layout of a template's dialogues: its text around the contents, read from renderings with marks in their place.

    opening U1 | after_user A1 | after_answer U2 | after_user A2 | after_answer U3 | generation
               '-- of a past answer, with or without a thought --'

A layout is used only as far as it predicts the template's own renderings. Knows no tokens.
"""

import re
from dataclasses import dataclass

from chat.prompting.jinja_sandbox import Conversation
from chat.tool_calling.call_text import RESULT_END, RESULT_START

START, END = "\ue000", "\ue001"
MARK_CHARS = START + END
_MARK = re.compile(f"{START}([A-Z][0-9]*){END}")
SYSTEM, USER, THOUGHT, ANSWER = "S", "U", "R", "A"
# Around results of tools, which are a user turn.
RESULT_HEAD, RESULT_TAIL = f"{RESULT_START}\n", f"\n{RESULT_END}"
# Longest dialogue that is rendered whole to check a layout: its turns are first, second, later and last.
CHECKED_TURNS = 4

Pieces = tuple[str, ...]  # texts of the template and names of marks, alternating


@dataclass(frozen=True)
class DialogueShape:
    """The facts that a template's text depends on besides contents: past answers with a thought, a system text, and
    user turns that are results of tools: templates show thoughts between calls, but not those of earlier turns."""

    has_system: bool
    thoughts: tuple[bool, ...] = ()  # one for each past answer
    results: tuple[bool, ...] = ()  # one for each user turn after the first; empty for none

    @property
    def n_turns(self) -> int:
        return len(self.thoughts) + 1


def mark(name: str, number: int | None = None) -> str:
    return f"{START}{name}{'' if number is None else number}{END}"


def marked_conversation(
    shape: DialogueShape, *, takes_system: bool = True, takes_results: bool = False
) -> Conversation:
    """Return a dialogue with marks for contents. Without ``takes_system`` the first user text begins with it; with
    ``takes_results`` those of tools have a role of their own."""
    system = [{"role": "system", "content": mark(SYSTEM)}] if shape.has_system and takes_system else []
    head = f"{mark(SYSTEM)}\n\n" if shape.has_system and not takes_system else ""
    messages: Conversation = [*system, {"role": "user", "content": head + mark(USER, 1)}]
    for number, has_thought in enumerate(shape.thoughts, start=1):
        thought = {"reasoning_content": mark(THOUGHT, number)} if has_thought else {}
        messages.append({"role": "assistant", "content": mark(ANSWER, number)} | thought)
        is_result = bool(shape.results) and shape.results[number - 1]
        question = mark(USER, number + 1)
        if is_result and takes_results:
            messages.append({"role": "tool", "content": question})
        else:
            text = RESULT_HEAD + question + RESULT_TAIL if is_result else question
            messages.append({"role": "user", "content": text})
    return messages


def pieces_of(text: str) -> Pieces:
    """Split a rendering at its marks."""
    return tuple(_MARK.split(text))


def shows_all(text: str, shape: DialogueShape) -> bool:
    """Return whether a rendering has every text of the dialogue once, thoughts at most once."""
    names = pieces_of(text)[1::2]
    required = [SYSTEM] if shape.has_system else []
    required += [f"{USER}{number}" for number in range(1, shape.n_turns + 1)]
    required += [f"{ANSWER}{number}" for number in range(1, shape.n_turns)]
    return sorted(name for name in names if name[0] != THOUGHT) == sorted(required) and len(set(names)) == len(names)


@dataclass(frozen=True)
class DialogueLayout:
    """Texts of a template between contents. ``opening`` ends before the first user text."""

    opening: Pieces
    after_user: str  # to a past answer without a thought
    before_thought: str  # the same for one with a thought, which ``after_thought`` follows
    after_thought: str | None  # None: past thoughts are not shown
    after_answer: str
    generation: str  # from the last user text to the start of the answer

    @classmethod
    def of(cls, alone: str, plain: str, with_thoughts: str) -> "DialogueLayout | None":
        """Read renderings of one turn, and of three turns with and without thoughts; None if they have other texts."""
        single, longer, thinking = pieces_of(alone), pieces_of(plain), pieces_of(with_thoughts)
        opening = _until(single, f"{USER}1")
        after_user = _between(longer, f"{USER}2", f"{ANSWER}2")
        after_answer = _between(longer, f"{ANSWER}1", f"{USER}2")
        if opening is None or after_user is None or after_answer is None:
            return None
        before_thought = _between(thinking, f"{USER}2", f"{THOUGHT}2")
        after_thought = _between(thinking, f"{THOUGHT}2", f"{ANSWER}2")
        without = _between(thinking, f"{USER}2", f"{ANSWER}2")
        is_shown = before_thought is not None and after_thought is not None
        return cls(
            opening=opening,
            after_user=after_user,
            before_thought=(before_thought if is_shown else without) or after_user,
            after_thought=after_thought if is_shown else None,
            after_answer=after_answer,
            generation=single[-1],
        )

    def predicted(self, shape: DialogueShape) -> str:
        """Return the rendering of a marked dialogue as this layout has it."""
        opening = (mark(piece) if index % 2 else piece for index, piece in enumerate(self.opening))
        parts = [*opening, mark(USER, 1)]
        for number, has_thought in enumerate(shape.thoughts, start=1):
            parts.append(self.before_thought if has_thought else self.after_user)
            if has_thought and self.after_thought is not None:
                parts += [mark(THOUGHT, number), self.after_thought]
            is_result = bool(shape.results) and shape.results[number - 1]
            question = mark(USER, number + 1)
            parts += [mark(ANSWER, number), self.after_answer]
            parts.append(RESULT_HEAD + question + RESULT_TAIL if is_result else question)
        return "".join([*parts, self.generation])

    @property
    def common_after_user(self) -> str:
        """The longest text that follows every user text, last or not."""
        texts = (self.generation, self.after_user, self.before_thought)
        shortest = min(texts, key=len)
        length = next((n for n, chars in enumerate(zip(*texts, strict=False)) if len(set(chars)) > 1), len(shortest))
        return shortest[:length]


def checked_shapes(*, has_system: bool) -> list[DialogueShape]:
    """Return the dialogues whose renderings a layout has to predict, the plain ones first."""
    patterns: list[tuple[bool, ...]] = [(False,) * n for n in range(CHECKED_TURNS)]
    patterns += [(True,) * n for n in range(1, CHECKED_TURNS)]
    patterns += [(True, False, True), (False, True, False), (False, True)]
    shapes = [DialogueShape(has_system, pattern) for pattern in patterns]
    for results in ((True,), (True, True), (True, False), (False, True), (False, True, True)):
        shapes += [DialogueShape(has_system, (thinks,) * len(results), results) for thinks in (False, True)]
    return shapes


def _until(pieces: Pieces, name: str) -> Pieces | None:
    names = pieces[1::2]
    return pieces[: 2 * names.index(name) + 1] if name in names else None


def _between(pieces: Pieces, first: str, second: str) -> str | None:
    """Return the text between two marks that follow each other."""
    names = pieces[1::2]
    if first not in names or names.index(first) + 1 >= len(names) or names[names.index(first) + 1] != second:
        return None
    return pieces[2 * names.index(second)]
