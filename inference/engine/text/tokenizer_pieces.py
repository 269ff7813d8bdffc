"""Splitting of long texts into pieces that a tokenizer may encode one by one, in time linear in the length of the text.

llama.cpp cuts a text at user-defined tokens before anything else, and walks its list of fragments from the start at
every hit (``tokenizer_st_partition`` in ``llama-vocab.cpp``): 200 KB of short lines take a minute. It also takes time
quadratic in the characters that a piece holds and the vocabulary lacks. Pieces that begin where a user-defined token
certainly begins, or at a character that no token contains, have the same tokens as the whole text.

The other hazard is the stack: several pre-tokenizers are ``std::regex`` patterns, whose recursion follows the length
of a match. A run of 32,000 blanks, digits or letters ends the process.
"""

import re
from collections.abc import Collection, Iterator

from inference.engine.text.token_spellings import character_ranges, standalone_brackets, standalone_runs

# Short enough that the square of a piece's fragments costs nothing, long enough that calls do not.
PIECE_CHARS = 1_000
# A quarter of the shortest run that was seen to overflow a thread's stack of 8 MiB is 8,000.
LONGEST_RUN_CHARS = 4_000

_LONG_RUN = re.compile(
    "|".join(f"{kind}{{{LONGEST_RUN_CHARS}}}" for kind in (r"[^\W\d_]", r"\d", r"\s", r"_", r"[^\w\s]")),
)


class TextSplitter:
    """Positions at which a text may be cut without a change of its tokens.

    ``user_tokens``: the spellings that the tokenizer looks for before anything else. Two shapes of them give cuts:
    runs of one character (line breaks, blanks, tabs) and words in brackets (``<b>``). A shape counts only if no other
    spelling could overlap it. ``known_chars``: the characters that occur in any token; others are never merged with
    their neighbours, so that every one of them is a cut. Empty: they give no cuts. ``bound_runs``: also cut runs of one
    kind of character that are longer than ``LONGEST_RUN_CHARS``; there the tokens may differ from those of the whole
    text, which is still spelled exactly.
    """

    def __init__(
        self, user_tokens: Collection[str], *, known_chars: Collection[str] = (), bound_runs: bool = False
    ) -> None:
        self._bound_runs = bound_runs
        self._run_lengths = standalone_runs(user_tokens)
        self._bracketed = standalone_brackets(user_tokens)
        patterns = [f"{re.escape(char)}{{{shortest},}}" for char, (shortest, _) in self._run_lengths.items()]
        if self._bracketed:
            longest = max(map(len, self._bracketed)) - 2
            patterns.append(rf"[<\[][^<>\[\]]{{1,{longest}}}[>\]]")
        self._known_chars = frozenset(known_chars)
        if known_chars:
            patterns.append(f"[^{character_ranges(self._known_chars)}]")
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def split(self, text: str) -> Iterator[str]:
        """Yield pieces of ``text``, in order; joined they are ``text``. The last one may be of any length."""
        start = 0
        for cut in self._cuts(text):
            if cut - start >= PIECE_CHARS:
                yield from self._bounded(text[start:cut])
                start = cut
        yield from self._bounded(text[start:])

    def _cuts(self, text: str) -> Iterator[int]:
        if self._pattern is None or len(text) <= PIECE_CHARS:
            return
        for match in self._pattern.finditer(text):
            run = self._run_lengths.get(text[match.start()])
            if run is not None:
                # The longest spelling is taken from the left as often as it fits.
                yield from range(match.start(), match.end(), run[1])
            elif match.group() in self._bracketed or (len(match.group()) == 1 and self._known_chars):
                yield match.start()

    def _bounded(self, piece: str) -> Iterator[str]:
        start = 0
        if self._bound_runs and len(piece) >= LONGEST_RUN_CHARS:
            for run in _LONG_RUN.finditer(piece):
                yield piece[start : run.end()]
                start = run.end()
        if start < len(piece):
            yield piece[start:]
