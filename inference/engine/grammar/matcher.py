"""Matchers: which tokens may follow in an answer that obeys a grammar. Owns llguidance's state and its copies."""

import threading
from collections import OrderedDict
from contextlib import suppress

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from inference.engine.backends.backend import Logits
from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.errors import GrammarError
from inference.engine.grammar.limits import PARSER_LIMITS

MAX_COMPILED = 64

# Tokens that are checked together where a string may go on for so many characters. Of llguidance's four sets these two:
# the others make no mask faster (measured with free and bounded strings, patterns, formats), and take 46 MB and 0.3 s.
STRING_SLICES = [r'[^"\\\x00-\x1F\x7F]{1,10}', r'[^"\\\x00-\x1F\x7F]{1,30}']

Bitmask = NDArray[np.int32]


class GrammarMatcher:
    """Position of one answer in its grammar. It is a function of the grammar and the answer's tokens alone, so that
    another runner restores it from them."""

    def __init__(self, native: LLMatcher, usable: Bitmask) -> None:
        self._native = native
        self._usable = usable
        self._mask = np.zeros_like(usable)

    @property
    def is_complete(self) -> bool:
        """Return whether nothing but the end may follow."""
        return bool(self._native.is_stopped())

    def restrict(self, logits: Logits) -> None:
        """Set the logits of tokens that must not follow to ``-inf``. Raises GrammarError if none may."""
        self._native.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        np.bitwise_and(self._mask, self._usable, out=self._mask)
        allowed = np.unpackbits(self._mask.view(np.uint8), count=len(logits), bitorder="little").view(np.bool_)
        np.copyto(logits, -np.inf, where=~allowed)
        if logits.max() == -np.inf:
            raise GrammarError("no token is allowed by both the grammar and logit_bias")

    def consume(self, token: int) -> None:
        """Advance by an emitted token. Raises GrammarError for one that the grammar does not allow."""
        if not self._native.consume_token(token):
            self._check()

    def permitted(self, draft: list[int]) -> list[int]:
        """Return the beginning of ``draft`` that the grammar allows, without advancing."""
        return draft[: self._native.validate_tokens(draft)] if draft else draft

    def forced(self) -> list[int]:
        """Return the usual tokens of the text that has to follow, without advancing; empty where there is a choice."""
        return self._native.compute_ff_tokens()

    def _check(self) -> None:
        if self._native.is_error():
            raise GrammarError(f"the grammar cannot be followed further: {_first_line(self._native.get_error())}")


def _first_line(message: str) -> str:
    return message.partition("\n")[0]


class GrammarCompiler:
    """Compiles grammars for one vocabulary and keeps the latest. Thread safe: a kept one is returned while another is
    compiled. The first call takes a second and 60 MB for a vocabulary of 262,144 tokens, and holds Python's lock for
    most of it: ``read_vocabulary`` does that ahead, while nothing is computed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._building = threading.Lock()  # of ``_tokenizer`` and ``_usable``
        self._tokenizer: LLTokenizer | None = None
        self._usable: Bitmask = np.zeros(0, dtype=np.int32)
        self._lock = threading.Lock()  # around ``_compiled``
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def matcher(self, grammar: str) -> GrammarMatcher:
        """Return a matcher at the start of an answer. Raises GrammarError."""
        native = self._compile(grammar)
        if native.is_error():
            raise GrammarError(f"the grammar cannot be compiled: {_first_line(native.get_error())}")
        return GrammarMatcher(native.deep_copy(), self._usable)

    def prepare(self, grammar: str) -> None:
        """Compile ``grammar`` ahead of its use; an error is reported there."""
        with suppress(GrammarError):
            self._compile(grammar)

    @property
    def has_read_vocabulary(self) -> bool:
        return self._tokenizer is not None or not self._vocabulary.eog_tokens

    def read_vocabulary(self) -> None:
        with suppress(GrammarError):
            self._native_tokenizer()

    def _compile(self, grammar: str) -> LLMatcher:
        with self._lock:
            native = self._compiled.pop(grammar, None)
            if native is not None:
                self._compiled[grammar] = native
                return native
        native = LLMatcher(self._native_tokenizer(), grammar, log_level=0, limits=PARSER_LIMITS)
        with self._lock:
            self._compiled[grammar] = native
            if len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        return native

    def _native_tokenizer(self) -> LLTokenizer:
        with self._building:
            if self._tokenizer is None:
                if not self._vocabulary.eog_tokens:
                    raise GrammarError("the model has no token that could end the answer")
                native_vocabulary = _NativeVocabulary(self._vocabulary)
                self._usable, self._tokenizer = native_vocabulary.usable_tokens(), native_vocabulary.tokenizer()
                native_vocabulary.tokens.clear()  # copied; the tokenizer keeps this object
            return self._tokenizer


class _NativeVocabulary:
    """A vocabulary as llguidance reads it: control tokens have no bytes, and no grammar can name one."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = min(vocabulary.eog_tokens)
        self.tokens = vocabulary.pieces()
        self.special_token_ids = [token for token, piece in enumerate(self.tokens) if not piece]

    def __call__(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._vocabulary.encode(text, special=False)

    def tokenizer(self) -> LLTokenizer:
        return LLTokenizer(
            TokenizerWrapper(self),
            n_vocab=self._vocabulary.n_tokens,
            eos_token=sorted(self._vocabulary.eog_tokens),
            slices=STRING_SLICES,
        )

    def usable_tokens(self) -> Bitmask:
        """Return a mask of the tokens that have bytes or end an answer."""
        bits = np.zeros(-(-self._vocabulary.n_tokens // 32) * 32, dtype=np.bool_)
        bits[: len(self.tokens)] = [bool(piece) for piece in self.tokens]
        bits[list(self._vocabulary.eog_tokens)] = True
        return np.packbits(bits, bitorder="little").view(np.int32)
