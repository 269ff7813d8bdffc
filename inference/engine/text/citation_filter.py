"""Labels such as ``[1]`` or ``[2, 5-7]`` in a growing text: which it has, and removal of those nothing stands behind.

A label is a bracket outside of code with nothing in it but numbers of up to three digits. An unknown one goes with the
space before it; ``[7](address)`` is a link and stays, as does the index of ``row_ids[7]``. Knows nothing of what labels
stand for.
"""

import re

MAX_DIGITS = 3
MAX_LABEL = 10**MAX_DIGITS - 1
# A bracket that is longer is no label; what may become one is held back.
MAX_BRACKET_CHARS = 48

_PLAIN = re.compile(r"[^\[`\n]+")
_PART = r" *\d{1,3}(?: *[-\u2013] *\d{1,3})? *"
_LABEL = re.compile(rf"{_PART}(?:[,;]{_PART})*")
_WITHIN = frozenset("0123456789 ,;-\u2013")
# A bracket right after such a name is an index. After any other word it is a label: many write "on Friday[1]" so. Hence
# only what is hardly ever a word of a sentence: one small letter, row_ids, rows2, myRows, and what lists are called.
_INDEXED = re.compile(
    r"(?<!\w)(?:[a-z]|\w*_\w*|[a-z]\w*\d|[a-z]{2,}[A-Z]\w*|list|array|arr|dict|tuple|argv|args|nums|matrix|vector|self)"
    r"(?:\.\w+|\(\w*\)|\[\w+\])*$"
)
_MAX_INDEXED_CHARS = 100


class _Code:
    """Whether a text is within a code fence or a code span. A span that its line does not close ends with it."""

    def __init__(self) -> None:
        self._fenced = False
        self._n_opening = 0  # backticks that opened the span
        self._n_ticks = 0  # of the run that is being read
        self._is_run_first = False
        self._is_line_blank = True

    def is_inside(self) -> bool:
        """Where the next character stands, which is no backtick."""
        self._end_run()
        return self._fenced or self._n_opening > 0

    def see(self, text: str) -> None:
        """A backtick, a line break, or text without either."""
        if text == "`":
            self._is_run_first = self._is_line_blank if self._n_ticks == 0 else self._is_run_first
            self._n_ticks += 1
            self._is_line_blank = False
            return
        self._end_run()
        if text == "\n":
            self._n_opening, self._is_line_blank = 0, True
        elif text.strip():
            self._is_line_blank = False

    def _end_run(self) -> None:
        n_ticks, self._n_ticks = self._n_ticks, 0
        if n_ticks >= 3 and self._is_run_first:
            self._fenced = not self._fenced
        elif n_ticks and not self._fenced:
            # Other numbers of backticks within a span are its text.
            self._n_opening = {0: n_ticks, n_ticks: 0}.get(self._n_opening, self._n_opening)


class CitationFilter:
    """Takes text in pieces of any size and releases it without the labels above ``highest``.

    The text released is the same however it was cut. ``found`` are the numbers of the labels released.
    """

    def __init__(self, highest: int) -> None:
        self.found: set[int] = set()
        self._highest = highest
        self._held = ""  # a space, an open bracket, or an unknown label before the next character
        self._last = "\n"
        self._tail = ""  # of what was released, back to the last space
        self._code = _Code()

    def push(self, text: str) -> str:
        released: list[str] = []
        at = 0
        # In runs, since a whole answer comes this way too; only what may matter goes character by character.
        while at < len(text):
            run = None if self._held else _PLAIN.match(text, at)
            part = run[0] if run else text[at]
            released.append(self._plain(part) if run else self._next(part))
            at += len(part)
        return "".join(released)

    def flush(self) -> str:
        """What was held back, when the text ends here; of an open bracket what is known."""
        if self._held.endswith("]"):
            self._held = self._held.rpartition("[")[0].rstrip(" ")
        held, self._held = self._held, ""
        numbers = (number for number in re.findall(r"\d+", held) if len(number) <= MAX_DIGITS)
        return self._release(held if all(map(self._is_known, map(int, numbers))) else "")

    def _is_known(self, number: int) -> bool:
        return 1 <= number <= self._highest

    def _plain(self, text: str) -> str:
        self._code.see(text)
        if text.endswith(" "):
            self._held, text = " ", text[:-1]
        return self._release(text)

    def _next(self, character: str) -> str:
        """One character after what is held."""
        if self._held.endswith("]"):
            return self._after_unknown(character)
        if "[" in self._held:
            return self._within(character)
        if character == "[" and not self._code.is_inside() and not self._is_index():
            self._held += character
            return ""
        held, self._held = self._held, ""
        if character == " ":
            self._held = character
            return self._release(held)
        self._code.see(character)
        return self._release(held + character)

    def _is_index(self) -> bool:
        return not self._held and _INDEXED.search(self._tail) is not None

    def _within(self, character: str) -> str:
        if character == "]":
            return self._closed()
        if (character in _WITHIN or character == "[") and len(self._held) < MAX_BRACKET_CHARS:
            self._held += character
            return ""
        return self._let_go() + self._next(character)

    def _closed(self) -> str:
        # The innermost one: a bracket around it is no label as long as this one stands.
        before, _, inner = self._held.rpartition("[")
        if not _LABEL.fullmatch(inner):
            self._held += "]"
            return self._let_go()
        parts = [self._known_part(part) for part in re.split("[,;]", inner)]
        known = [part for part in parts if part]
        if not known:
            self._held += "]"
            return ""
        for first, last in known:
            self.found.update(range(first, last + 1))
        self._held = ""
        if len(known) == len(parts) and all(map(self._is_known, map(int, re.findall(r"\d+", inner)))):
            return self._release(f"{before}[{inner}]")
        shown = (str(first) if first == last else f"{first}-{last}" for first, last in known)
        return self._release(f"{before}[{', '.join(shown)}]")

    def _known_part(self, part: str) -> tuple[int, int] | None:
        """First and last of a number or range, as far as they are known."""
        numbers = sorted(map(int, re.findall(r"\d+", part)))
        first, last = max(1, numbers[0]), min(self._highest, numbers[-1])
        return (first, last) if first <= last else None

    def _after_unknown(self, character: str) -> str:
        if character == "(":
            return self._let_go() + self._next(character)
        before = self._held.rpartition("[")[0]
        had_space = before.endswith(" ")
        # A bracket around the label is open again: what follows may make it one.
        self._held = before[: len(before) - had_space]
        if self._held:
            return self._next(character)
        if character == " " and not had_space and self._last == "\n":
            return ""  # a line does not begin with the space that followed its label
        # Something has to stand between two words, and before a label that follows.
        if had_space and (character.isalnum() or character == "["):
            self._held = " "
        return self._next(character)

    def _let_go(self) -> str:
        """What is held is no label."""
        held, self._held = self._held, ""
        self._code.see(held)
        return self._release(held)

    def _release(self, text: str) -> str:
        self._last = text[-1:] or self._last
        tail = self._tail + text[-_MAX_INDEXED_CHARS:]
        self._tail = tail[max(tail.rfind(" "), tail.rfind("\n")) + 1 :][-_MAX_INDEXED_CHARS:]
        return text


def citation_labels(text: str) -> set[int]:
    """The numbers of all labels of a whole text."""
    if "[" not in text:
        return set()
    whole = CitationFilter(MAX_LABEL)
    whole.push(text)
    return whole.found
