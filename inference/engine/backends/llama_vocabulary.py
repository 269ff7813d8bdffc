"""Vocabulary of a GGUF file, by llama.cpp's own tokenizer.

Knows no context and no sequences; works on a model loaded with or without its weights.
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.llama import LlamaModel
from inference.engine.text.plain_text import encode_plain, fingerprint, is_marker
from inference.engine.text.token_spellings import BRACKETED, standalone_brackets
from inference.engine.text.tokenizer_pieces import PIECE_CHARS, TextSplitter

PIECE_BYTES = 256
FIRST_PART_CHARS = 16_000
UNSURE_TOKENS = 64


class LlamaVocabulary:
    """Thread safe: llama.cpp only reads here, and each cache below is filled by single dict operations."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model  # owns the native vocabulary
        self._vocab = model.vocab
        self._markers: dict[int, str | None] = {}
        self._pieces: dict[int, bytes] = {}
        self.n_tokens: int = lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int | None = _present(lib.llama_vocab_bos(self._vocab))
        self.eos: int | None = _present(lib.llama_vocab_eos(self._vocab))
        self.metadata: Mapping[str, str] = MappingProxyType(model.metadata)
        self.model_name: str = model.name
        self.trained_context: int = model.trained_context
        self.chat_template: str | None = model.metadata.get("tokenizer.chat_template") or None
        self.fingerprint: str = fingerprint(self.model_name, self.n_tokens, self.metadata)

    @cached_property
    def longest_token_bytes(self) -> int | None:
        if lib.llama_vocab_type(self._vocab) not in (lib.LLAMA_VOCAB_TYPE_BPE, lib.LLAMA_VOCAB_TYPE_SPM):
            return None  # the others normalize: a run of blanks may become one token, or none
        # A spelling has at least the bytes of its text: a blank is spelled with three, other bytes with two or six.
        return max(len(lib.llama_vocab_get_text(self._vocab, token)) for token in range(self.n_tokens))

    def encode(
        self,
        text: str,
        *,
        special: bool,
        limit: int | None = None,
        between_pieces: Callable[[], None] | None = None,
    ) -> list[int]:
        if special:
            return self._encode_special(text, limit, between_pieces)
        return encode_plain(text, lambda part: self._encode(part, False, limit, between_pieces), self._marker_text)

    def piece(self, token: int) -> bytes:
        if token not in self._pieces:
            self._check(token)
            self._pieces[token] = self._read_piece(token, ctypes.create_string_buffer(PIECE_BYTES))
        return self._pieces[token]

    def pieces(self) -> list[bytes]:
        buffer = ctypes.create_string_buffer(PIECE_BYTES)
        return [self._read_piece(token, buffer) for token in range(self.n_tokens)]

    def _read_piece(self, token: int, buffer: "ctypes.Array[ctypes.c_char]") -> bytes:
        length = lib.llama_token_to_piece(self._vocab, token, buffer, PIECE_BYTES, 0, False)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = lib.llama_token_to_piece(self._vocab, token, buffer, -length, 0, False)
        return ctypes.string_at(buffer, length)

    def text(self, ids: list[int]) -> str:
        return b"".join(map(self.piece, ids)).decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        self._check(token)
        spelling: bytes = lib.llama_vocab_get_text(self._vocab, token)
        return spelling.decode("utf-8", "replace")

    def is_eog(self, token: int) -> bool:
        self._check(token)
        return token in self.eog_tokens

    @cached_property
    def eog_tokens(self) -> frozenset[int]:
        return frozenset(token for token in range(self.n_tokens) if lib.llama_vocab_is_eog(self._vocab, token))

    def marker_texts(self) -> list[str]:
        return [text for token in range(self.n_tokens) if (text := self._marker_text(token)) is not None]

    def _encode_special(self, text: str, limit: int | None, between_pieces: Callable[[], None] | None) -> list[int]:
        # llama.cpp looks for each of its control tokens, 6,250 in Gemma's case, in each fragment of a text.
        if len(text) <= PIECE_CHARS or not self._separate_controls:
            return self._encode(text, True, limit, between_pieces)
        tokens: list[int] = []
        start = 0
        for match in BRACKETED.finditer(text):
            if match[0] in self._separate_controls:
                rest = None if limit is None else max(0, limit - len(tokens))
                tokens += self._encode(text[start : match.start()], False, rest, between_pieces)
                tokens += self._tokenize(match[0], parse_special=True)
                start = match.end()
            if limit is not None and len(tokens) > limit:
                return tokens
        rest = None if limit is None else max(0, limit - len(tokens))
        return tokens + self._encode(text[start:], False, rest, between_pieces)

    @cached_property
    def _separate_controls(self) -> frozenset[str]:
        """The spellings of all control tokens; none if another token's spelling could overlap one of them."""
        user_defined, control = self._special_spellings
        are_separate = set(control) <= standalone_brackets(user_defined + control)
        return frozenset(control if are_separate and not self._has_stripping_tokens else ())

    def _encode(
        self, text: str, parse_special: bool, limit: int | None, between_pieces: Callable[[], None] | None
    ) -> list[int]:
        if len(text) <= PIECE_CHARS:
            return self._tokenize(text, parse_special=parse_special)
        tokens: list[int] = []
        for piece in self._splitters[parse_special].split(text):
            if limit is not None and (ids := self._beyond(piece, limit - len(tokens), parse_special=parse_special)):
                return tokens + ids
            tokens += self._tokenize(piece, parse_special=parse_special)
            if limit is not None and len(tokens) > limit:
                break
            if between_pieces is not None:
                between_pieces()
        return tokens

    def _beyond(self, piece: str, limit: int, *, parse_special: bool) -> list[int]:
        """Return more than ``limit`` tokens from the beginning of a long piece; empty if it may have fewer.

        A piece without cuts takes time quadratic in the characters that the vocabulary lacks.
        """
        n_chars = FIRST_PART_CHARS
        while n_chars < len(piece):
            # The end of a part may have other tokens than the same place within the piece.
            ids = self._tokenize(piece[:n_chars], parse_special=parse_special)[:-UNSURE_TOKENS]
            if len(ids) > limit:
                return ids
            n_chars *= 2
        return []

    @cached_property
    def _splitters(self) -> dict[bool, TextSplitter]:
        """Splitters by ``parse_special``, with which control tokens are searched, too."""
        # Only a byte-pair vocabulary has a pre-tokenizer, and none of the prefixes that each piece would get.
        bound_runs = lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_BPE
        if self._has_stripping_tokens:
            return dict.fromkeys((False, True), TextSplitter((), bound_runs=bound_runs))
        user_defined, control = self._special_spellings
        known_chars = self._known_chars()
        return {
            False: TextSplitter(user_defined, known_chars=known_chars, bound_runs=bound_runs),
            True: TextSplitter(user_defined + control, known_chars=known_chars, bound_runs=bound_runs),
        }

    def _known_chars(self) -> frozenset[str]:
        """Return the characters that any token contains, for vocabularies that merge characters; else none."""
        merges_chars = lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_SPM
        # Such a prefix would come before each piece.
        if not merges_chars or self.metadata.get("tokenizer.ggml.add_space_prefix") != "false":
            return frozenset()
        # A blank is spelled as another character.
        return frozenset("".join(map(self.token_text, range(self.n_tokens)))) | {" "}

    @property
    def _attributes(self) -> list[int]:
        return [lib.llama_vocab_get_attr(self._vocab, token) for token in range(self.n_tokens)]

    @cached_property
    def _has_stripping_tokens(self) -> bool:
        """Return whether any token includes the blanks beside it."""
        return any(
            attribute & (lib.LLAMA_TOKEN_ATTR_LSTRIP | lib.LLAMA_TOKEN_ATTR_RSTRIP) for attribute in self._attributes
        )

    @cached_property
    def _special_spellings(self) -> tuple[list[str], list[str]]:
        """The spellings of user-defined and of control tokens."""
        control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        # llama.cpp makes a control token of some that the file calls user-defined ("</s>"), and adds to the attributes.
        kinds = [attribute & (lib.LLAMA_TOKEN_ATTR_USER_DEFINED | control) for attribute in self._attributes]
        return (
            [self.token_text(token) for token, kind in enumerate(kinds) if kind and not kind & control],
            [self.token_text(token) for token, kind in enumerate(kinds) if kind & control],
        )

    def _tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        # Lone surrogates (possible in JSON strings) have no UTF-8; they become "?".
        data = text.encode("utf-8", "replace")
        room = len(data) + 8  # no tokenizer yields more tokens than bytes, but for a prefix
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._vocab, data, len(data), tokens, room, False, parse_special)
        if count < 0:
            tokens = (lib.llama_token * -count)()
            count = lib.llama_tokenize(self._vocab, data, len(data), tokens, -count, False, parse_special)
        return list(tokens[:count])

    def _marker_text(self, token: int) -> str | None:
        if token not in self._markers:
            attributes = lib.llama_vocab_get_attr(self._vocab, token)
            spelling = self.token_text(token)
            steers = is_marker(
                spelling,
                control=bool(attributes & lib.LLAMA_TOKEN_ATTR_CONTROL),
                user_defined=bool(attributes & lib.LLAMA_TOKEN_ATTR_USER_DEFINED),
            )
            self._markers[token] = spelling if steers else None
        return self._markers[token]

    def _check(self, token: int) -> None:
        # An index out of range makes llama.cpp abort the whole process.
        if not 0 <= token < self.n_tokens:
            raise ValueError(f"token {token} is not one of {self.n_tokens}")


def _present(token: int) -> int | None:
    return None if token < 0 else int(token)
