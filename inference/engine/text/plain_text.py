"""Encoding of user text without control tokens, for any vocabulary, and the rule for such marker tokens."""

import hashlib
import re
from collections.abc import Callable, Mapping
from itertools import chain

# Tokens of this form are words of HTML that the tokenizer keeps whole; other user-defined tokens steer the model.
_HTML_TAG = re.compile(r"</?[a-z][a-z0-9]*>")


def is_marker(text: str, *, control: bool, user_defined: bool) -> bool:
    """Return whether user text must never become this token.

    Control tokens steer the model. Of the user-defined ones some do too (``<start_of_image>``, ``[multimodal]``), and
    llama.cpp finds those even where it is told not to parse special tokens; others are only runs of blanks or HTML.
    """
    if control:
        return True
    in_brackets = len(text) > 2 and text[0] in "<[" and text[-1] in ">]"
    return user_defined and in_brackets and _HTML_TAG.fullmatch(text) is None


def encode_plain(
    text: str, tokenize: Callable[[str], list[int]], marker_text: Callable[[int], str | None]
) -> list[int]:
    """Return token ids of ``text`` without markers; their pieces joined are exactly ``text``.

    ``tokenize`` may yield markers; ``marker_text`` returns the text of a marker, ``None`` for other tokens.
    """
    ids = tokenize(text)
    as_text: dict[int, list[int]] = {}
    for token in set(ids):
        marker = marker_text(token)
        if marker is not None and len(marker) > 1:
            # The tokenizer cuts the text at a marker before anything else, so its neighbours stay as they are.
            parts = (encode_plain(part, tokenize, marker_text) for part in (marker[:1], marker[1:]))
            as_text[token] = list(chain.from_iterable(parts))
    return [plain for token in ids for plain in as_text.get(token, (token,))] if as_text else ids


def fingerprint(name: str, n_tokens: int, metadata: Mapping[str, str]) -> str:
    """Return a digest that changes when text would become other tokens or another prompt."""
    digest = hashlib.sha256(f"{name}\n{n_tokens}\n".encode())
    for key in sorted(metadata):
        if key.startswith("tokenizer.") or key == "general.architecture":
            digest.update(f"{key}={metadata[key]}\n".encode())
    return digest.hexdigest()
