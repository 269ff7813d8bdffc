"""Shapes of user-defined tokens at which a text may be cut, since no other token could overlap them.

Knows spellings only; ``tokenizer_pieces`` cuts.
"""

import re
from collections import defaultdict
from collections.abc import Collection

OPENING, CLOSING = "<[", ">]"
BRACKETED = re.compile(r"[<\[][^<>\[\]]+[>\]]")  # spellings of the kind of ``standalone_brackets`` wherever they occur


def standalone_runs(user_tokens: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return shortest and longest run by character, for runs that are tokens of every length between.

    A character that occurs in another token is left out.
    """
    lengths: dict[str, set[int]] = defaultdict(set)
    for token in user_tokens:
        if token and token == token[0] * len(token):
            lengths[token[0]].add(len(token))
    shared = {char for token in user_tokens for char in token if token != token[0] * len(token)}
    return {
        char: (min(sizes), max(sizes))
        for char, sizes in lengths.items()
        if char not in shared and len(sizes) == max(sizes) - min(sizes) + 1
    }


def standalone_brackets(user_tokens: Collection[str]) -> frozenset[str]:
    """Return the spellings in brackets; none if a bracket occurs elsewhere in any spelling."""
    brackets = set(OPENING + CLOSING)
    with_brackets = [token for token in user_tokens if brackets.intersection(token)]
    for token in with_brackets:
        encloses = len(token) > 2 and token[0] in OPENING and token[-1] in CLOSING
        if not encloses or brackets.intersection(token[1:-1]):
            return frozenset()
    return frozenset(with_brackets)


def character_ranges(chars: Collection[str]) -> str:
    """Return the inside of a character class of a pattern; ``re`` compares single characters beyond U+FFFF in turn."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, chars)):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in ranges)
