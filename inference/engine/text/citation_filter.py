"""Citation labels such as ``[1]`` or ``[2, 5-7]`` in a growing text: removal of labels without a source.

A label is a bracket outside of code that holds only numbers of up to three digits. An unknown label is removed together
with the space before it; ``[7](address)`` is a link and stays, as does the index of ``row_ids[7]``. Knows no sources.
"""

import re

MAX_DIGITS = 3
MAX_LABEL = 10**MAX_DIGITS - 1
# A longer bracket is no label; text that may become one is held back.
MAX_BRACKET_CHARS = 48

_PLAIN = re.compile(r"[^\[`\n]+")
_PART = r" *+\d{1,3}(?: *+[-\u2013] *+\d{1,3})?+ *+"
_LABEL = re.compile(rf"\A{_PART}(?:[,;]{_PART})*")
_LABEL_CHARS = frozenset("0123456789 ,;-\u2013")
# A bracket right after such a name is an index; after any other word it is a label ("on Friday[1]"). Hence only names
# that are hardly ever words of a sentence: one small letter, row_ids, rows2, myRows, and usual names of lists.
# Every part matches in one way only, since a text of brackets is searched at each of them.
_INDEXED = re.compile(
    r"(?<!\w)(?:[a-z]|(?=[^\W_]*_)\w++|[a-z]\w++(?<=\d)|[a-z]{2,}+[A-Z]\w*+"
    r"|list|array|arr|dict|tuple|argv|args|nums|matrix|vector|self)"
    r"(?:\.\w++|\(\w*+\)|\[\w++\])*+$"
)
_MAX_INDEXED_CHARS = 100


class _Code:
    """State of code fences and code spans. A span that is not closed ends with its line."""

    def __init__(self) -> None:
        self._fenced = False
        self._n_opening = 0  # backticks that opened the span
        self._n_ticks = 0  # of the current run
        self._is_run_first = False
        self._is_line_blank = True

    def is_inside(self) -> bool:
        """Return whether the next character, not a backtick, is in code."""
        self._end_run()
        return self._fenced or self._n_opening > 0

    def advance(self, text: str) -> None:
        """Advance over a backtick, a line break, or text without either."""
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
    """Takes text in pieces of any size and releases it without labels above ``highest``.

    The released text does not depend on the pieces. ``numbers`` are those of the released labels.
    """

    def __init__(self, highest: int) -> None:
        self.numbers: set[int] = set()
        self._highest = highest
        self._pending = ""  # a space, an open bracket, or an unknown label before the next character
        self._last = "\n"
        self._tail = ""  # end of the released text, from the last space on
        self._code = _Code()

    def push(self, text: str) -> str:
        released: list[str] = []
        at = 0
        # In runs where possible, since whole answers pass too; around brackets and code character by character.
        while at < len(text):
            run = None if self._pending else _PLAIN.match(text, at)
            if run is None:
                released.append(self._next(text[at]))
                at += 1
                continue
            part, at = run[0], run.end()
            self._code.advance(part)
            if part.endswith(" "):
                self._pending, part = " ", part[:-1]
            released.append(self._release(part))
        return "".join(released)

    def flush(self) -> str:
        """Release the pending text at the end; an open bracket only if its numbers are known."""
        if self._pending.endswith("]"):
            self._pending = self._pending.rpartition("[")[0].rstrip(" ")
        pending, self._pending = self._pending, ""
        numbers = (number for number in re.findall(r"\d+", pending) if len(number) <= MAX_DIGITS)
        return self._release(pending if all(map(self._is_known, map(int, numbers))) else "")

    def _is_known(self, number: int) -> bool:
        return 1 <= number <= self._highest

    def _next(self, character: str) -> str:
        """Process one character behind the pending text."""
        if self._pending.endswith("]"):
            return self._after_unknown(character)
        if "[" in self._pending:
            return self._within(character)
        if character == "[" and not self._code.is_inside() and (self._pending or not _INDEXED.search(self._tail)):
            self._pending += character
            return ""
        pending, self._pending = self._pending, ""
        if character == " ":
            self._pending = character
            return self._release(pending)
        self._code.advance(character)
        return self._release(pending + character)

    def _within(self, character: str) -> str:
        if character == "]":
            return self._closed()
        if (character in _LABEL_CHARS or character == "[") and len(self._pending) < MAX_BRACKET_CHARS:
            self._pending += character
            return ""
        return self._release_pending() + self._next(character)

    def _closed(self) -> str:
        # The innermost bracket: one around it is no label as long as this one stays.
        before, _, inner = self._pending.rpartition("[")
        if not _LABEL.fullmatch(inner):
            self._pending += "]"
            return self._release_pending()
        # Each part is a number or a range, which is bounded to the known labels.
        parts = [sorted(map(int, re.findall(r"\d+", part))) for part in re.split("[,;]", inner)]
        bounded_parts = [(max(1, numbers[0]), min(self._highest, numbers[-1])) for numbers in parts]
        known_parts = [(first, last) for first, last in bounded_parts if first <= last]
        if not known_parts:
            self._pending += "]"
            return ""
        for first, last in known_parts:
            self.numbers.update(range(first, last + 1))
        self._pending = ""
        if all(self._is_known(number) for numbers in parts for number in numbers):
            return self._release(f"{before}[{inner}]")
        labels = (str(first) if first == last else f"{first}-{last}" for first, last in known_parts)
        return self._release(f"{before}[{', '.join(labels)}]")

    def _after_unknown(self, character: str) -> str:
        if character == "(":
            return self._release_pending() + self._next(character)
        before = self._pending.rpartition("[")[0]
        had_space = before.endswith(" ")
        # A bracket around the label is open again and may still become a label.
        self._pending = before[: len(before) - had_space]
        if self._pending:
            return self._next(character)
        if character == " " and not had_space and self._last == "\n":
            return ""  # a line does not begin with the space that followed its label
        # Keep one space between two words, and before another label.
        if had_space and (character.isalnum() or character == "["):
            self._pending = " "
        return self._next(character)

    def _release_pending(self) -> str:
        """Release the pending text, which is no label."""
        pending, self._pending = self._pending, ""
        self._code.advance(pending)
        return self._release(pending)

    def _release(self, text: str) -> str:
        self._last = text[-1:] or self._last
        tail = self._tail + text[-_MAX_INDEXED_CHARS:]
        self._tail = tail[max(tail.rfind(" "), tail.rfind("\n")) + 1 :][-_MAX_INDEXED_CHARS:]
        return text


def citation_labels(text: str) -> set[int]:
    """Return the numbers of all labels of a whole text."""
    if "[" not in text:
        return set()
    whole = CitationFilter(MAX_LABEL)
    whole.push(text)
    return whole.numbers
